"""Where the time went, for who asks: in the whole answer, or beside the stream's usage."""

import json
import time
from collections.abc import AsyncGenerator, Iterator

import httpx
import pytest

from service.engine.engine import Engine, EngineConfig
from service.engine.router import EngineRouter
from service.engine.token_events import EngineRequest, StepTimes, TokenEvent
from tests.conformance.scripted_service import FIRST_BYTE, TOKEN_IDS, VOCAB_SIZE, ScriptedService
from tests.conformance.wire import CHAT, ask, error_of, events_of, image_part
from tests.unit.engine.scripted_model import ScriptedModel

STAGES = {"image_ms", "queue_ms", "prefill_ms", "decode_ms"}


@pytest.fixture
def timing(service: ScriptedService, monkeypatch: pytest.MonkeyPatch) -> ScriptedService:
    async def stream(request: EngineRequest) -> AsyncGenerator[TokenEvent, None]:
        times = StepTimes(time.monotonic(), time.monotonic())
        yield TokenEvent(request.request_id, (FIRST_BYTE + 65,), times=times)
        yield TokenEvent(request.request_id, (TOKEN_IDS.eos,), "stop", TOKEN_IDS.eos)

    monkeypatch.setattr(service.engine, "stream", stream)
    return service


@pytest.mark.usefixtures("timing")
def test_timings_are_told_to_who_asks(http: httpx.Client) -> None:
    body = ask(image_part(), "?", timings=True)
    told = [http.post(CHAT, json=body).json()["timings"]]
    *chunks, last, _ = events_of(
        http.post(CHAT, json=body | {"stream": True, "stream_options": {"include_usage": True}}).content
    )
    told.append(last["timings"])
    assert last["usage"]
    assert last["choices"] == []
    assert all("timings" not in chunk for chunk in chunks)
    for timings in told:
        assert set(timings) == STAGES
        assert all(value >= 0 for value in timings.values())


@pytest.mark.usefixtures("timing")
def test_timings_of_completions_and_responses(http: httpx.Client) -> None:
    completion = {"prompt": ["a", "b"], "timings": True}
    told = [http.post("/v1/completions", json=completion).json()["timings"]]
    streamed = completion | {"stream": True, "stream_options": {"include_usage": True}}
    *chunks, last, _ = events_of(http.post("/v1/completions", json=streamed).content)
    told.append(last["timings"])
    assert all("timings" not in chunk for chunk in chunks)
    response = {"input": "x", "timings": True}
    told.append(http.post("/v1/responses", json=response).json()["timings"])
    stream = http.post("/v1/responses", json=response | {"stream": True}).text
    last_data = stream.removesuffix("\n\n").rpartition("data: ")[2]
    assert stream.count("timings") == 1
    told.append(json.loads(last_data)["response"]["timings"])
    for timings in told:
        assert set(timings) == STAGES
        assert all(value >= 0 for value in timings.values())


@pytest.mark.parametrize("fields", [{}, {"timings": False}, {"timings": None}])
def test_nobody_else_sees_them(http: httpx.Client, fields: dict[str, object]) -> None:
    assert "timings" not in http.post(CHAT, json=ask(**fields)).json()
    streamed = ask(stream=True, stream_options={"include_usage": True}, **fields)
    assert b"timings" not in http.post(CHAT, json=streamed).content


@pytest.mark.parametrize("options", [{}, {"stream_options": {"include_usage": False}}])
def test_a_stream_without_usage_has_no_place_for_them(http: httpx.Client, options: dict[str, object]) -> None:
    reply = http.post(CHAT, json=ask(stream=True, timings=True, **options))
    assert (reply.status_code, error_of(reply)["param"]) == (400, "timings")


class _UnpagedModel(ScriptedModel):
    is_paged = False  # the engine runs it one request after another, as the stateful runner


@pytest.fixture(scope="module")
def routed() -> Iterator[httpx.Client]:
    """Real engines behind a router."""
    yield from _routed(ScriptedModel)


@pytest.fixture(scope="module")
def one_by_one() -> Iterator[httpx.Client]:
    yield from _routed(_UnpagedModel)


def _routed(model: type[ScriptedModel]) -> Iterator[httpx.Client]:
    config = EngineConfig(
        max_position_embeddings=500,
        eos_token_id=TOKEN_IDS.eos,
        kv_cache_bytes=500 * ScriptedModel.block_bytes,
        max_num_seqs=4,
        max_num_batched_tokens=16,
    )
    router = EngineRouter([Engine(model(VOCAB_SIZE), config) for _ in range(2)])
    router.start()
    try:
        with ScriptedService(token_engine=router) as service:
            service.open()
            with httpx.Client(base_url=service.base_url, timeout=30) as client:
                yield client
    finally:
        router.stop()


def _check_stages(client: httpx.Client, body: dict[str, object]) -> None:
    began = time.monotonic()
    whole = client.post(CHAT, json=body).json()
    taken_ms = (time.monotonic() - began) * 1000
    streamed = body | {"stream": True, "stream_options": {"include_usage": True}}
    *_, last, _ = events_of(client.post(CHAT, json=streamed).content)
    for timings in (whole["timings"], last["timings"]):
        assert set(timings) == STAGES
        assert all(value >= 0 for value in timings.values())
        assert timings["prefill_ms"] > 0
        assert timings["decode_ms"] > 0
    assert sum(whole["timings"].values()) <= taken_ms


@pytest.mark.parametrize(
    "fields",
    [{}, {"n": 2, "seed": 1}, {"num_beams": 3}, {"num_beams": 3, "n": 2}],
    ids=["one", "choices", "beams", "two beams"],
)
def test_real_engines_time_every_kind_of_request(routed: httpx.Client, fields: dict[str, object]) -> None:
    _check_stages(routed, ask(image_part(), "?", timings=True, max_tokens=8, ignore_eos=True, **fields))


def test_an_engine_that_runs_one_by_one_times_too(one_by_one: httpx.Client) -> None:
    _check_stages(one_by_one, ask(image_part(), "?", timings=True, max_tokens=8, ignore_eos=True))


@pytest.mark.parametrize("fields", [{}, {"n": 2}, {"num_beams": 2}])
def test_an_answer_that_fails_before_its_first_token_is_an_error(
    http: httpx.Client, service: ScriptedService, fields: dict[str, object]
) -> None:
    service.engine.fail_after = 0
    assert http.post(CHAT, json=ask(timings=True, **fields)).status_code == 500
    streamed = ask(timings=True, stream=True, stream_options={"include_usage": True}, **fields)
    *_, error, done = events_of(http.post(CHAT, json=streamed).content)
    assert (error["error"]["type"], done) == ("server_error", "[DONE]")
