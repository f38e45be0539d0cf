"""A service on a scripted engine and OpenAI's own clients for it; the real one on the embedded model."""

import os
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from openai import AsyncOpenAI, OpenAI

from service.settings import EMBEDDED_MODEL_DIR
from tests.conformance.scripted_service import ScriptedService, wait_until
from tests.conformance.wire import CHAT, ask
from tests.live_server import LiveServer

# Who has LangChain report to LangSmith does not mean what is tried here.
for name in [name for name in os.environ if name.startswith(("LANGSMITH_", "LANGCHAIN_"))]:
    del os.environ[name]


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
def endless(service: ScriptedService) -> ScriptedService:
    """It answers until somebody stops it."""
    _never_end(service)
    return service


@pytest.fixture
def full_service() -> Iterator[ScriptedService]:
    """Its one place is taken."""
    with ScriptedService(max_in_flight=1) as service:
        service.open()
        _never_end(service)
        body = ask(stream=True, max_tokens=100_000)
        with httpx.stream("POST", f"{service.base_url}{CHAT}", json=body, timeout=30) as running:
            pieces = running.iter_raw()  # must live on: its end closes the connection
            next(pieces)
            yield service


def _never_end(service: ScriptedService) -> None:
    service.engine.endless, service.engine.pause_s = True, 0.005
    service.engine.max_model_len = 1_000_000


@pytest.fixture
def client(service: ScriptedService) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{service.base_url}/v1", api_key="unused", max_retries=0) as openai:
        yield openai


@pytest.fixture
async def async_client(service: ScriptedService) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{service.base_url}/v1", api_key="unused", max_retries=0) as openai:
        yield openai


@pytest.fixture(scope="module")
def live() -> Iterator[LiveServer]:
    """The real service on the embedded model."""
    with LiveServer(model_dir=EMBEDDED_MODEL_DIR) as server:
        yield server


@pytest.fixture(scope="module")
def shared_http(shared_service: ScriptedService) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=shared_service.base_url, timeout=30) as plain:
        yield plain


@pytest.fixture
def http(service: ScriptedService, shared_http: httpx.Client) -> httpx.Client:
    """A plain client of the service after its reset."""
    return shared_http
