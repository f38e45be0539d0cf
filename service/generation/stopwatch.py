"""When one request came to each of its stages; knows nothing of what happens in them."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from service.engine.token_events import StepTimes
from service.protocol.timings import Timings


class Stopwatch:
    """Told of every stage as it comes. All times are of time.monotonic(), the engine thread's too."""

    def __init__(self) -> None:
        self._image_s = 0.0
        self._submitted_s = 0.0
        self._steps: StepTimes | None = None
        self._last_token_s = 0.0

    @contextmanager
    def on_images(self) -> Iterator[None]:
        """Around work on images."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._image_s += time.monotonic() - began

    def submit(self) -> None:
        """The request goes to the engine."""
        self._submitted_s = time.monotonic()

    def token(self, steps: StepTimes | None) -> None:
        """An event came; `steps` stands in the first."""
        self._last_token_s = time.monotonic()
        self._steps = steps or self._steps

    def read(self) -> Timings | None:
        """As of the last token; None before the first: an answer may end before it has one."""
        if self._steps is None:
            return None
        started, first = self._steps.started_s, self._steps.first_token_s
        return Timings(
            image_ms=_milliseconds(self._image_s),
            queue_ms=_milliseconds(started - self._submitted_s),
            prefill_ms=_milliseconds(first - started),
            decode_ms=_milliseconds(self._last_token_s - first),
        )


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)
