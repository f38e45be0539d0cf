"""One step after another: schedule, run, sample, advance. Owns the sequences; knows no thread, no client."""

import itertools
import time
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from service.engine.batch import Batch
from service.engine.sampler import FAILED, Sampler, SamplerState
from service.engine.scheduler import Scheduler
from service.engine.sequence import Sequence
from service.engine.token_events import EngineRequest, FinishReason, StepTimes, TokenEvent


class Runner(Protocol):
    """What turns a batch into logits: ModelRunner, or a script in tests."""

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """-> [num_sampled, vocab_size], which the caller may overwrite; valid until the next run."""
        ...


@dataclass(frozen=True, slots=True)
class EngineStats:
    """What the engine holds between two steps."""

    running: int
    waiting: int
    used_blocks: int
    total_blocks: int
    preemptions: int  # since the start
    prefix_cache_queries: int = 0  # tokens of admitted prompts since the start
    prefix_cache_hits: int = 0  # of them, found in the prefix cache


class StepLoop:
    """The engine without its thread: deterministic, driven by calls."""

    def __init__(self, runner: Runner, scheduler: Scheduler, vocab_size: int, eos_token_id: int) -> None:
        self._runner = runner
        self._scheduler = scheduler
        self._sampler = Sampler()
        self._vocab_size = vocab_size
        self._eos_token_id = eos_token_id
        self._sequences: dict[int, Sequence] = {}  # by sequence_id
        self._sequence_ids: dict[str, int] = {}  # by request_id
        self._next_id = itertools.count()

    @property
    def has_work(self) -> bool:
        return self._scheduler.has_work

    @property
    def request_ids(self) -> list[str]:
        """Requests that have not ended."""
        return list(self._sequence_ids)

    @property
    def stats(self) -> EngineStats:
        blocks = self._scheduler.block_manager
        return EngineStats(
            len(self._scheduler.running),
            len(self._scheduler.waiting),
            blocks.num_used,
            blocks.num_blocks,
            self._scheduler.num_preemptions,
            self._scheduler.num_prefix_queries,
            self._scheduler.num_prefix_hits,
        )

    def add(self, request: EngineRequest) -> None:
        """Queue a request that fits (Engine has checked) and whose id is not in use."""
        sampling = request.sampling
        sequence = Sequence(
            next(self._next_id),
            request,
            self._scheduler.block_manager.new_table(len(request.token_ids) + sampling.max_tokens),
            SamplerState(sampling, self._eos_token_id, self._vocab_size),
            self._eos_token_id,
        )
        self._sequences[sequence.sequence_id] = sequence
        self._sequence_ids[request.request_id] = sequence.sequence_id
        self._scheduler.add(sequence)

    def abort(self, request_id: str) -> list[TokenEvent]:
        """End a request; its terminal event, or nothing if there is no such request (any more)."""
        if request_id not in self._sequence_ids:
            return []
        self._remove(self._sequences[self._sequence_ids[request_id]])
        return [TokenEvent(request_id, (), "abort")]

    def step(self) -> list[TokenEvent]:
        """Run one batch; the events of all sequences that got a token, or ended."""
        batch = self._scheduler.schedule()
        if not batch.chunks:
            return []
        self._note_start(batch)
        logits = self._runner.run(batch)
        for chunk in batch.chunks:
            self._scheduler.advance(self._sequences[chunk.sequence_id], len(chunk.token_ids))
        sampled = [self._sequences[sequence_id] for sequence_id in batch.sampled_sequence_ids]
        if not sampled:
            return []
        tokens = self._sampler.sample(logits, [sequence.sampler_state for sequence in sampled])
        return [
            self._advance(sequence, token) for sequence, token in zip(sampled, tokens.tolist(), strict=True)
        ]

    def _note_start(self, batch: Batch) -> None:
        now = time.monotonic()
        for chunk in batch.chunks:
            sequence = self._sequences[chunk.sequence_id]
            if sequence.started_s is None:
                sequence.started_s = now

    def _advance(self, sequence: Sequence, token: int) -> TokenEvent:
        request_id = sequence.request.request_id
        num_cached = 0 if sequence.num_generated else sequence.num_cached_tokens or 0
        if token == FAILED:
            self._scheduler.block_manager.forget(sequence.block_table)  # what is in them may be broken
            self._remove(sequence)
            return TokenEvent(request_id, (), "error", num_cached_tokens=num_cached)
        times = None
        if not sequence.num_generated and sequence.started_s is not None:
            times = StepTimes(sequence.started_s, time.monotonic())
        finish_reason: FinishReason | None = sequence.append(token)
        if finish_reason is not None:
            self._remove(sequence)
        stop_token_id = token if finish_reason == "stop" else None
        return TokenEvent(request_id, (token,), finish_reason, stop_token_id, num_cached, times)

    def _remove(self, sequence: Sequence) -> None:
        self._scheduler.remove(sequence)
        del self._sequences[sequence.sequence_id]
        del self._sequence_ids[sequence.request.request_id]
