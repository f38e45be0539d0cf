"""The sequences of one request, which run, wait and give way together; decides nothing about others."""

import time

from service.engine.beam_search import BeamSearch
from service.engine.sequence import Sequence
from service.engine.token_events import EngineRequest, StepTimes


class SequenceGroup:
    """One sequence that computes the prompt and then, where more were asked for, its forks too.

    A group that starts over after a preemption has all its sequences to compute again. They share the
    prompt's full blocks, which the first sequence computes; the others wait until it has.
    """

    __slots__ = (
        "_num_shared_tokens",
        "_started_s",
        "beam_search",
        "is_forked",
        "num_cached_tokens",
        "rank",
        "request",
        "sequences",
        "times",
    )

    def __init__(self, first: Sequence, beam_search: BeamSearch | None = None) -> None:
        self.request: EngineRequest = first.request
        self.rank = (self.request.priority, 0)  # and its place among arrivals, which the scheduler sets
        self.sequences = [first]  # that have not ended: choices by index, beams by score
        self.beam_search = beam_search
        self.is_forked = self.request.sampling.num_seqs == 1
        self.num_cached_tokens: int | None = None  # of the prompt, found at first admission; None before
        self.times: StepTimes | None = None  # None before the first token
        self._started_s: float | None = None  # time.monotonic() of its first step; None before
        self._num_shared_tokens = 0  # the others wait for these; 0: nobody waits

    @property
    def num_seqs(self) -> int:
        """Places it takes among the sequences of a step, now or once it forks."""
        return len(self.sequences) if self.is_forked else self.request.sampling.num_seqs

    @property
    def in_lockstep(self) -> bool:
        """Whether its sequences decode together or not at all: beams are weighed against one another."""
        return self.is_forked and self.beam_search is not None

    def decoding(self) -> list[Sequence]:
        """Sequences whose last token is all that is left to run."""
        if len(self.sequences) == 1:  # nearly always, in every step
            return self.sequences if self.sequences[0].num_uncomputed == 1 else []
        ready = [sequence for sequence in self.sequences if sequence.num_uncomputed == 1]
        return ready if len(ready) == len(self.sequences) or not self.in_lockstep else []

    def prefilling(self, *, starting: bool = False) -> list[tuple[Sequence, int]]:
        """Sequences with tokens to run before they can decode, and how many: of beams all but the last one.

        In the step in which it starts, the group runs a single token too.
        """
        sequences = self.sequences[:1] if self._num_shared_tokens else self.sequences
        least = 1 if starting and not self.in_lockstep else 2
        return [(s, s.num_uncomputed - self.in_lockstep) for s in sequences if s.num_uncomputed >= least]

    def wait_for_prefix(self, num_tokens: int) -> None:
        """Until the first sequence has computed the `num_tokens` whose blocks the others share."""
        self._num_shared_tokens = num_tokens if len(self.sequences) > 1 else 0

    def share_prefix(self) -> None:
        """Let those go on who wait for nothing any more."""
        num_tokens = self._num_shared_tokens
        if num_tokens and self.sequences[0].num_computed_tokens >= num_tokens:
            for other in self.sequences[1:]:
                other.num_computed_tokens = num_tokens
            self._num_shared_tokens = 0

    def remove(self, sequence: Sequence) -> None:
        """Take out a sequence that ended. The next one goes on with a prefix that others wait for."""
        if self._num_shared_tokens and sequence is self.sequences[0] and len(self.sequences) > 1:
            done = min(sequence.num_computed_tokens, self._num_shared_tokens)
            self.sequences[1].num_computed_tokens = done
        self.sequences.remove(sequence)

    def note_start(self) -> None:
        """A step with it begins; the first one counts, also after a preemption."""
        if self._started_s is None:
            self._started_s = time.monotonic()

    def note_first_token(self) -> None:
        """A token of it was drawn, or beams were chosen; the first one counts."""
        if self.times is None:
            assert self._started_s is not None, "tokens come of steps"
            self.times = StepTimes(self._started_s, time.monotonic())

    def start_over(self) -> None:
        """Forget what was computed; every sequence keeps its tokens."""
        self._num_shared_tokens = 0
        for sequence in self.sequences:
            sequence.num_computed_tokens = 0
