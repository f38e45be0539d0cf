"""A service on a scripted engine, and OpenAI's own clients for it."""

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from openai import AsyncOpenAI, OpenAI

from tests.conformance.scripted_service import ScriptedService, wait_until


@pytest.fixture(scope="module")
def shared_service() -> Iterator[ScriptedService]:
    with ScriptedService() as running:
        running.open()
        yield running


@pytest.fixture
def service(shared_service: ScriptedService) -> ScriptedService:
    """Ready, and with nothing left of the test before. Do not drain it."""
    shared_service.encoder.gate.set()
    wait_until(lambda: shared_service.generator.num_in_flight == 0)
    shared_service.engine.reset()
    return shared_service


@pytest.fixture
def client(service: ScriptedService) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{service.base_url}/v1", api_key="unused", max_retries=0) as openai:
        yield openai


@pytest.fixture
async def async_client(service: ScriptedService) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{service.base_url}/v1", api_key="unused", max_retries=0) as openai:
        yield openai


@pytest.fixture(scope="module")
def shared_http(shared_service: ScriptedService) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=shared_service.base_url, timeout=30) as plain:
        yield plain


@pytest.fixture
def http(service: ScriptedService, shared_http: httpx.Client) -> httpx.Client:
    """A plain client of the service after its reset."""
    return shared_http
