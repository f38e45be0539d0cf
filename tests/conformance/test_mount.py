"""Below a gateway's path: with the prefix still in front, or taken off by the gateway; keys hold in both."""

from collections.abc import Iterator

import httpx
import pytest
from openai import OpenAI

from service.api.application import create_api
from service.errors import StartupError
from service.generation.availability import Availability
from tests.conformance.scripted_service import MODEL, ScriptedService, api_config
from tests.conformance.wire import CHAT, ask, error_of

KEY = "mount-key-0123456789"


@pytest.fixture(scope="module")
def mounted() -> Iterator[ScriptedService]:
    config = api_config(api_keys=[KEY], route_prefix="/openai/serve", root_path="/llm")
    with ScriptedService(config) as service:
        service.open()
        yield service


@pytest.fixture(scope="module")
def http(mounted: ScriptedService) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=mounted.base_url, headers={"authorization": f"Bearer {KEY}"}) as client:
        yield client


@pytest.mark.parametrize("prefix", ["", "/openai/serve"])
def test_routes_stand_with_and_without_the_prefix(
    mounted: ScriptedService, http: httpx.Client, prefix: str
) -> None:
    with OpenAI(base_url=f"{mounted.base_url}{prefix}/v1", api_key=KEY, max_retries=0) as client:
        assert client.models.retrieve(MODEL).id == MODEL
        answer = client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "x"}], stream=True
        )
        assert "".join(chunk.choices[0].delta.content or "" for chunk in answer) == "The answer."
    assert http.post(f"{prefix}{CHAT}", json=ask()).status_code == 200
    assert http.get(f"{prefix}/v1/models/openbmb%2FMiniCPM-V-2").json()["id"] == MODEL
    reply = http.get(f"{prefix}{CHAT}")
    assert (reply.status_code, reply.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize("prefix", ["", "/openai/serve"])
def test_health_alone_is_open(mounted: ScriptedService, prefix: str) -> None:
    with httpx.Client(base_url=mounted.base_url) as stranger:
        assert stranger.get(f"{prefix}/health/live").status_code == 200
        assert stranger.head(f"{prefix}/health/ready").status_code == 200
        assert stranger.get(f"{prefix}/health").status_code == 200
        for path in ("/v1/models", "//health/live", "/health/live/", "/health/", ""):
            assert stranger.get(f"{prefix}{path}").status_code == 401, path
        for path in ("/openai/serves/health/live", "/openai/serve/openai/serve/health/live"):
            assert stranger.get(path).status_code == 401


@pytest.mark.parametrize(
    "path", ["/openai/serve", "/openai/v1/models", "/openai/serve/openai/serve/v1/models", "/llm/v1/models"]
)
def test_nothing_else_is_a_route(http: httpx.Client, path: str) -> None:
    reply = http.get(path)
    assert (reply.status_code, error_of(reply)["code"]) == (404, "model_not_found")


def test_the_document_names_the_public_address(http: httpx.Client) -> None:
    assert http.get("/openapi.json").json()["servers"] == [{"url": "/llm"}]
    assert http.get("/openai/serve/openapi.json").json()["servers"] == [{"url": "/llm/openai/serve"}]


@pytest.mark.parametrize("prefix", ["/v1", "/health", "/v1/models", "/tokenize"])
def test_a_prefix_that_is_a_route_is_refused(prefix: str) -> None:
    with pytest.raises(StartupError, match="MINICPMV_ROUTE_PREFIX"):
        create_api(api_config(route_prefix=prefix), Availability())
