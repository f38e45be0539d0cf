"""Several engines as one: chooses who gets a request; knows no device, no thread and no token's meaning."""

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import astuple

from service.engine.engine import Engine
from service.engine.step_loop import EngineStats
from service.engine.token_events import EngineRequest, TokenEvent
from service.errors import InvalidValueError


class EngineRouter:
    """One engine or more that answer alike. stream() and abort() belong to the event loop.

    A request goes to the engine that holds the longest part of its prompt, else to the one where the fewest
    requests come before it, else to the one with the fewest; for a prefix it does not queue while another
    engine has a free place.
    """

    def __init__(self, engines: Sequence[Engine]) -> None:
        assert engines, "there is nobody to route to"
        self.engines = tuple(engines)
        # What fits one fits all: a limit must not depend on where a request goes.
        self.max_model_len = min(engine.max_model_len for engine in engines)
        self.max_num_seqs = min(engine.max_num_seqs for engine in engines)
        self._engine_of: dict[str, Engine] = {}  # by request id, while the request runs

    @property
    def is_healthy(self) -> bool:
        """Whether every engine takes requests; one that failed ends the process, as a single one would."""
        return all(engine.is_healthy for engine in self.engines)

    def start(self) -> None:
        for engine in self.engines:
            engine.start()

    def stop(self) -> None:
        """End every unfinished request with "abort"; waits for the steps under way."""
        for engine in self.engines:
            engine.stop()

    def stats(self) -> EngineStats:
        """The sums over all engines."""
        return total([engine.stats() for engine in self.engines])

    def max_new_tokens(self, num_prompt_tokens: int, num_seqs: int = 1) -> int:
        """As Engine.max_new_tokens, on the engine with the least room."""
        return min(engine.max_new_tokens(num_prompt_tokens, num_seqs) for engine in self.engines)

    def abort(self, request_id: str, index: int | None = None) -> None:
        """End a request with "abort", or one choice of it; nothing if it has ended."""
        engine = self._engine_of.get(request_id)
        if engine is not None:
            engine.abort(request_id, index)

    async def stream(self, request: EngineRequest) -> AsyncGenerator[TokenEvent, None]:
        """As Engine.stream, on the engine of choice."""
        request_id = request.request_id
        if request_id in self._engine_of:
            raise InvalidValueError("the request id is in use", "request_id")
        # From here to the engine's queue nothing is awaited: the next choice sees this one.
        engine = self._engine_of[request_id] = self._choose(request)
        try:
            async with aclosing(engine.stream(request)) as events:
                async for event in events:
                    yield event
        finally:
            del self._engine_of[request_id]

    def _choose(self, request: EngineRequest) -> Engine:
        if len(self.engines) == 1:
            return self.engines[0]
        loads = {engine: engine.num_unfinished for engine in self.engines}
        free = [engine for engine in self.engines if loads[engine] < engine.max_num_seqs]
        return max(
            free or self.engines,
            key=lambda engine: (
                engine.num_cached_tokens(request),
                -engine.num_before(request.priority),
                -loads[engine],
            ),
        )


def total(stats: Iterable[EngineStats]) -> EngineStats:
    """Field by field."""
    return EngineStats(*(sum(values) for values in zip(*map(astuple, stats), strict=True)))
