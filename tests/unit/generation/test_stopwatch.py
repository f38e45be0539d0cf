"""Stages add up, by a clock that is set by hand."""

import pytest

from service.engine.token_events import StepTimes
from service.generation.stopwatch import Stopwatch


def test_every_stage_has_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    watch = Stopwatch()
    for _ in range(2):
        with watch.on_images():
            now += 0.25
        now += 10
    watch.submit()
    now += 3
    watch.token(StepTimes(started_s=now - 2, first_token_s=now - 0.5))
    now += 4
    watch.token(None)
    timings = watch.read()
    assert timings is not None
    assert timings.model_dump() == {
        "image_ms": 500.0,
        "queue_ms": 1000.0,
        "prefill_ms": 1500.0,
        "decode_ms": 4500.0,
    }


def test_before_the_first_token_there_is_nothing_to_tell() -> None:
    watch = Stopwatch()
    watch.submit()
    assert watch.read() is None
