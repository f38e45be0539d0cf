"""One step after another: schedule, run, sample, advance. Owns the sequences; knows no thread, no client."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from service.engine.answer_matcher import AnswerMatcher
from service.engine.batch import Batch, ScheduledChunk
from service.engine.beam_search import Beam, BeamSearch
from service.engine.block_manager import BlockTable
from service.engine.sampler import FAILED, Sampler, SamplerState
from service.engine.scheduler import Scheduler
from service.engine.sequence import Sequence
from service.engine.sequence_group import SequenceGroup
from service.engine.speculation import Guess, follow
from service.engine.token_events import EngineRequest, FinishReason, TokenEvent, TokenLogprobs


class Runner(Protocol):
    """What turns a batch into logits: ModelRunner, or a script in tests."""

    def run(self, batch: Batch, beside: Callable[[], None] | None = None) -> NDArray[np.float32]:
        """-> [num_sampled, vocab_size], which the caller may overwrite; valid until the next run.

        `beside` is called while the device computes, if it can; in any case once.
        """
        ...


@dataclass(frozen=True, slots=True)
class EngineStats:
    """What the engine holds between two steps."""

    running: int  # requests
    waiting: int  # requests
    used_blocks: int
    total_blocks: int
    preemptions: int  # since the start
    prefix_cache_queries: int = 0  # tokens of admitted prompts since the start
    prefix_cache_hits: int = 0  # of them, found in the prefix cache
    guessed_tokens: int = 0  # checked by a step since the start
    accepted_tokens: int = 0  # of them, drawn: tokens that took no step of their own


class StepLoop:
    """The engine without its thread: deterministic, driven by calls."""

    def __init__(self, runner: Runner, scheduler: Scheduler, vocab_size: int, eos_token_id: int) -> None:
        self._runner = runner
        self._scheduler = scheduler
        self._sampler = Sampler()
        self._vocab_size = vocab_size
        self._eos_token_id = eos_token_id
        self._sequences: dict[int, Sequence] = {}  # by sequence_id
        self._groups: dict[str, SequenceGroup] = {}  # by request_id
        self._next_id = itertools.count()

    @property
    def has_work(self) -> bool:
        return self._scheduler.has_work

    @property
    def request_ids(self) -> list[str]:
        """Requests that have not ended."""
        return list(self._groups)

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
            self._scheduler.guesser.num_guessed,
            self._scheduler.guesser.num_accepted,
        )

    def add(self, request: EngineRequest) -> None:
        """Queue a request that fits (Engine has checked) and whose id is not in use."""
        sampling = request.sampling
        search = None
        if sampling.beam_search is not None:
            eos = frozenset() if sampling.ignore_eos else {self._eos_token_id}
            search = BeamSearch(sampling.beam_search, sampling.max_tokens, sampling.stop_token_ids | eos)
        matcher = None
        if request.constraint is not None:
            matcher = AnswerMatcher(
                request.constraint, sampling.max_tokens, self._eos_token_id, self._vocab_size
            )
        state = SamplerState(sampling, self._eos_token_id, self._vocab_size, matcher=matcher)
        first = Sequence(next(self._next_id), request, self._new_table(request), state, self._eos_token_id)
        group = SequenceGroup(first, search)
        self._sequences[first.sequence_id] = first
        self._groups[request.request_id] = group
        self._scheduler.add(group)

    def abort(self, request_id: str) -> list[TokenEvent]:
        """End a request; its terminal event, or nothing if there is no such request (any more)."""
        if request_id not in self._groups:
            return []
        self._remove(self._groups[request_id])
        return [TokenEvent(request_id, (), "abort")]

    def abort_choice(self, request_id: str, index: int) -> list[TokenEvent]:
        """End one choice without an event; with the last one left, the request. Not for beams."""
        group = self._groups.get(request_id)
        chosen = [s for s in group.sequences if s.index == index] if group is not None else []
        if group is None or not chosen:
            return []
        if len(group.sequences) == 1:
            return self.abort(request_id)
        self._remove_sequence(group, chosen[0])
        return []

    def step(self) -> list[TokenEvent]:
        """Run one batch; the events of all choices that got a token, or ended."""
        batch = self._scheduler.schedule()
        if not batch.chunks:
            return []
        for chunk in batch.chunks:
            self._groups[self._sequences[chunk.sequence_id].request.request_id].note_start()
        sampled = [self._sequences[chunk.sequence_id] for chunk in batch.sampled_chunks]
        logits = self._runner.run(batch, _preparing(sampled))
        for chunk in batch.chunks:
            if not chunk.num_guessed:
                self._scheduler.advance(self._sequences[chunk.sequence_id], len(chunk.token_ids))
        return self._go_on(logits, batch.sampled_chunks) if batch.num_sampled else []

    def _go_on(self, logits: NDArray[np.float32], chunks: list[ScheduledChunk]) -> list[TokenEvent]:
        """Share out the rows of logits: choices that fork draw from one, beams need theirs together, a guess
        has one for each of its tokens."""
        drawing: list[tuple[SequenceGroup, Sequence]] = []
        rows: list[int] = []
        searching: dict[SequenceGroup, list[int]] = {}
        guesses: list[Guess] = []
        next_row = 0
        for chunk in chunks:
            row, next_row = next_row, next_row + chunk.num_rows
            sequence = self._sequences[chunk.sequence_id]
            group = self._groups[sequence.request.request_id]
            if chunk.num_guessed:
                guesses.append(Guess(group, sequence, row, chunk.token_ids[1:].tolist()))
            elif group.beam_search is not None:
                searching.setdefault(group, []).append(row)
            elif not group.is_forked:
                self._fork_choices(group)
                drawing += [(group, choice) for choice in group.sequences]
                rows += [row] * len(group.sequences)
            else:
                drawing.append((group, sequence))
                rows.append(row)
        events: list[TokenEvent] = []
        for group, group_rows in searching.items():
            assert group.beam_search is not None
            events += self._search(group, group.beam_search, logits[group_rows])
        follow(guesses, logits, self._sampler)
        for guess in guesses:
            events += self._settle(guess)
        if drawing:
            unchanged = rows == list(range(len(logits)))  # nearly always: spare the copy
            events += self._draw(logits if unchanged else logits[rows], drawing)
        return events

    def _settle(self, guess: Guess) -> Iterator[TokenEvent]:
        """What was drawn along a guess, in one event; another one if the row behind it failed."""
        group, sequence = guess.group, guess.sequence
        if guess.drawn:
            # Keys and values behind what was drawn are overwritten by what comes in their place.
            self._scheduler.advance(sequence, len(guess.drawn))
            self._scheduler.guesser.note(sequence, len(guess.token_ids), len(guess.drawn) - 1)
            if guess.finish_reason is not None:
                self._remove_sequence(group, sequence)
            yield TokenEvent(
                group.request.request_id,
                tuple(guess.drawn),
                guess.finish_reason,
                guess.drawn[-1] if guess.finish_reason == "stop" else None,
                index=sequence.index,
                logprobs=tuple(guess.logprobs),
            )
        if guess.failed:
            yield self._fail(group, 0)

    def _draw(
        self, logits: NDArray[np.float32], drawing: list[tuple[SequenceGroup, Sequence]]
    ) -> list[TokenEvent]:
        states = [sequence.sampler_state for _, sequence in drawing]
        tokens, logprobs = self._sampler.sample_with_logprobs(logits, states)
        events = []
        for row, ((group, sequence), token) in enumerate(zip(drawing, tokens.tolist(), strict=True)):
            if sequence.sequence_id in self._sequences:  # not if another choice's row failed
                events.append(self._advance(group, sequence, token, logprobs.get(row)))
        return events

    def _advance(
        self, group: SequenceGroup, sequence: Sequence, token: int, logprobs: TokenLogprobs | None
    ) -> TokenEvent:
        request_id = group.request.request_id
        is_first = sequence.num_generated == sequence.index == 0
        num_cached = (group.num_cached_tokens or 0) if is_first else 0
        if token == FAILED:
            return self._fail(group, num_cached)
        if is_first:
            group.note_first_token()
        finish_reason: FinishReason | None = sequence.append(token)
        if finish_reason is not None:
            self._remove_sequence(group, sequence)
        return TokenEvent(
            request_id,
            (token,),
            finish_reason,
            token if finish_reason == "stop" else None,
            num_cached,
            sequence.index,
            () if logprobs is None else (logprobs,),
            finish_reason is not None and bool(group.sequences),
            group.times if is_first else None,
        )

    def _fail(self, group: SequenceGroup, num_cached: int) -> TokenEvent:
        for sequence in group.sequences:
            self._scheduler.block_manager.forget(sequence.block_table)  # what is in them may be broken
        self._remove(group)
        return TokenEvent(group.request.request_id, (), "error", num_cached_tokens=num_cached)

    def _search(
        self, group: SequenceGroup, search: BeamSearch, logits: NDArray[np.float32]
    ) -> list[TokenEvent]:
        """One step of a beam search; its answers in one event each once it is done."""
        beams = group.sequences
        assert len(logits) == len(beams), "beams decode together"
        generated = [beam.generated_ids for beam in beams]
        log_probs = self._sampler.beam_log_probs(logits, beams[0].sampler_state, generated)
        if log_probs is None:
            return [self._fail(group, group.num_cached_tokens or 0)]
        group.note_first_token()
        going_on = search.advance(log_probs)
        if not search.is_done:
            self._replace_beams(group, going_on)
            return []
        self._remove(group)
        return list(self._answers(group, search))

    def _answers(self, group: SequenceGroup, search: BeamSearch) -> Iterator[TokenEvent]:
        request, n = group.request, group.request.sampling.n
        for index, best in enumerate(search.best(n)):
            yield TokenEvent(
                request.request_id,
                best.token_ids,
                "stop" if best.is_ended else "length",
                best.token_ids[-1] if best.is_ended else None,
                0 if index else group.num_cached_tokens or 0,
                index,
                others_run=index + 1 < n,
                times=None if index else group.times,
            )

    def _replace_beams(self, group: SequenceGroup, going_on: list[Beam]) -> None:
        """A beam's first continuation takes its sequence over, the others fork it, the rest end."""
        parents, children = group.sequences, []
        for beam in going_on:
            parent = parents[beam.parent]
            children.append(parent if parent not in children else self._fork(parent, parent.sampler_state))
        for parent in parents:
            if parent not in children:
                self._scheduler.block_manager.release(parent.block_table)
                del self._sequences[parent.sequence_id]
        for child, beam in zip(children, going_on, strict=True):
            child.extend(beam.token_id)
        group.sequences, group.is_forked = children, True

    def _fork_choices(self, group: SequenceGroup) -> None:
        """Once the prompt is computed, every choice goes on from it with a random stream of its own."""
        (first,) = group.sequences
        for index in range(1, group.request.sampling.n):
            matcher = first.sampler_state.matcher
            state = SamplerState(
                group.request.sampling,
                self._eos_token_id,
                self._vocab_size,
                index,
                None if matcher is None else matcher.fork(),
            )
            group.sequences.append(self._fork(first, state, index))
        group.is_forked = True

    def _fork(self, parent: Sequence, state: SamplerState, index: int = 0) -> Sequence:
        fork = parent.fork(next(self._next_id), self._new_table(parent.request), state, index)
        blocks = self._scheduler.block_manager
        blocks.fork(fork.block_table, parent.block_table, blocks.blocks_for(parent.num_computed_tokens))
        self._sequences[fork.sequence_id] = fork
        return fork

    def _new_table(self, request: EngineRequest) -> BlockTable:
        return self._scheduler.block_manager.new_table(len(request.token_ids) + request.sampling.max_tokens)

    def _remove_sequence(self, group: SequenceGroup, sequence: Sequence) -> None:
        self._scheduler.remove_sequence(group, sequence)
        del self._sequences[sequence.sequence_id]
        if not group.sequences:
            del self._groups[group.request.request_id]

    def _remove(self, group: SequenceGroup) -> None:
        self._scheduler.remove(group)
        for sequence in group.sequences:
            del self._sequences[sequence.sequence_id]
        del self._groups[group.request.request_id]


def _preparing(sampled: list[Sequence]) -> Callable[[], None] | None:
    """What can be done for the next tokens before there are logits: the masks of those that have grammars."""
    matchers = [s.sampler_state.matcher for s in sampled if s.sampler_state.matcher is not None]
    if not matchers:
        return None

    def prepare() -> None:
        for matcher in matchers:
            matcher.prepare()

    return prepare
