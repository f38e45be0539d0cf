"""What surrounds the answers: keys, request ids, CORS, models, health, raw headers of the real client."""

from collections.abc import Iterator

import httpx
import openai
import pytest
from openai import OpenAI

from tests.conformance.scripted_service import MODEL, ScriptedService, api_config
from tests.conformance.wire import CHAT, ask, error_of

KEYS = ("first-key-0123456789", "second-key-0123456789")
ORIGIN = "https://app.example"


@pytest.fixture(scope="module")
def guarded() -> Iterator[ScriptedService]:
    with ScriptedService(api_config(api_keys=KEYS, cors_origins=[ORIGIN])) as service:
        service.open()
        yield service


@pytest.fixture(scope="module")
def guarded_http() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=30) as client:
        yield client


@pytest.mark.parametrize("key", KEYS)
def test_every_key_opens(guarded: ScriptedService, key: str) -> None:
    with OpenAI(base_url=f"{guarded.base_url}/v1", api_key=key, max_retries=0) as client:
        assert [model.id for model in client.models.list()] == [MODEL]
        assert client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "x"}]
        ).choices


def test_a_wrong_key(guarded: ScriptedService) -> None:
    client = OpenAI(base_url=f"{guarded.base_url}/v1", api_key=KEYS[0][:-1], max_retries=0)
    with client, pytest.raises(openai.AuthenticationError) as caught:
        client.models.list()
    assert (caught.value.code, caught.value.type) == ("invalid_api_key", "invalid_request_error")


@pytest.mark.parametrize(
    "path", ["/v1/models", CHAT, "/docs", "/redoc", "/openapi.json", "/nowhere", "/health/", "//health/live"]
)
@pytest.mark.parametrize("header", [None, "", "Bearer", KEYS[0], f"Basic {KEYS[0]}", "Bearer ü"])
def test_nothing_but_health_is_open(
    guarded: ScriptedService, guarded_http: httpx.Client, path: str, header: str | None
) -> None:
    headers = {} if header is None else {b"authorization": header.encode("latin-1")}
    for method in ("GET", "POST", "OPTIONS"):
        reply = guarded_http.request(method, f"{guarded.base_url}{path}", headers=headers)
        assert (reply.status_code, error_of(reply)["code"]) == (401, "invalid_api_key")
        assert reply.headers["www-authenticate"] == "Bearer"


def test_health_is_open(guarded: ScriptedService) -> None:
    for path in ("/health/live", "/health/ready", "/health"):
        assert httpx.get(f"{guarded.base_url}{path}").status_code == 200


def test_preflight_allows_what_the_browser_client_sends(guarded: ScriptedService) -> None:
    wanted = "authorization,content-type,x-stainless-retry-count,x-stainless-runtime"
    reply = httpx.options(
        f"{guarded.base_url}{CHAT}",
        headers={
            "origin": ORIGIN,
            "access-control-request-method": "POST",
            "access-control-request-headers": wanted,
        },
    )
    assert reply.status_code == 200
    assert reply.headers["access-control-allow-origin"] == ORIGIN
    allowed = {name.strip() for name in reply.headers["access-control-allow-headers"].lower().split(",")}
    assert set(wanted.split(",")) <= allowed


def test_errors_can_be_read_across_origins(guarded: ScriptedService) -> None:
    reply = httpx.get(f"{guarded.base_url}/v1/models", headers={"origin": ORIGIN})
    assert reply.status_code == 401
    assert reply.headers["access-control-allow-origin"] == ORIGIN
    exposed = reply.headers["access-control-expose-headers"].lower()
    assert "x-request-id" in exposed
    assert "retry-after" in exposed


def test_without_origins_there_is_no_cors(http: httpx.Client) -> None:
    assert "access-control-allow-origin" not in http.get("/v1/models", headers={"origin": ORIGIN}).headers


def test_request_ids(client: OpenAI, http: httpx.Client) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model=MODEL, messages=[{"role": "user", "content": "x"}], extra_headers={"x-request-id": "mine-1.2:3"}
    )
    assert raw.headers["x-request-id"] == "mine-1.2:3"
    assert raw.headers["openai-processing-ms"].isdecimal()
    assert raw.parse().choices[0].message.content == "The answer."
    for bad in (b"", b"two words", b"a" * 129, "é".encode()):
        for path in ("/v1/models", "/nowhere"):
            given = http.get(path, headers={b"x-request-id": bad}).headers["x-request-id"]
            assert given.startswith("req_")
    streamed = http.post(CHAT, json=ask(stream=True), headers={"x-request-id": "abc"})
    assert streamed.headers["x-request-id"] == "abc"


def test_models(client: OpenAI, http: httpx.Client) -> None:
    (model,) = client.models.list()
    assert (model.id, model.object, model.created) == (MODEL, "model", 1_700_000_000)
    assert client.models.retrieve(MODEL) == model
    assert (
        http.get("/v1/models/openbmb/MiniCPM-V-2").json()
        == http.get("/v1/models/openbmb%2FMiniCPM-V-2").json()
    )
    assert http.get("/v1/models").json() == {"object": "list", "data": [model.to_dict()]}


def test_no_page_loads_scripts_from_elsewhere(http: httpx.Client) -> None:
    for path in ("/docs", "/redoc", "/docs/oauth2-redirect"):
        assert http.get(path).status_code == 404


def test_the_document_describes_errors_and_not_fastapis_own(http: httpx.Client) -> None:
    document = http.get("/openapi.json").json()
    assert "ValidationError" not in str(document)
    assert "text/event-stream" in document["paths"][CHAT]["post"]["responses"]["200"]["content"]
