"""Where the time went, for who asks: in the whole answer, or beside the stream's usage."""

import time
from collections.abc import AsyncGenerator

import httpx
import pytest

from service.engine.token_events import EngineRequest, StepTimes, TokenEvent
from tests.conformance.scripted_service import FIRST_BYTE, TOKEN_IDS, ScriptedService
from tests.conformance.wire import CHAT, ask, error_of, events_of, image_part

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


@pytest.mark.parametrize("fields", [{}, {"timings": False}, {"timings": None}])
def test_nobody_else_sees_them(http: httpx.Client, fields: dict[str, object]) -> None:
    assert "timings" not in http.post(CHAT, json=ask(**fields)).json()
    streamed = ask(stream=True, stream_options={"include_usage": True}, **fields)
    assert b"timings" not in http.post(CHAT, json=streamed).content


@pytest.mark.parametrize("options", [{}, {"stream_options": {"include_usage": False}}])
def test_a_stream_without_usage_has_no_place_for_them(http: httpx.Client, options: dict[str, object]) -> None:
    reply = http.post(CHAT, json=ask(stream=True, timings=True, **options))
    assert (reply.status_code, error_of(reply)["param"]) == (400, "timings")
