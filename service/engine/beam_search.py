"""Which beams go on and which hypotheses are best, from log-probabilities; knows no cache and no sequence.

The rules are those of transformers 4.36, with which the model was published (generation/beam_search.py:
BeamSearchScorer, BeamHypotheses); later versions end a search by another test, see decision 11.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.engine.sampling_params import BeamSearchParams
from service.engine.token_filters import top_ids


@dataclass(frozen=True, slots=True)
class Beam:
    """A running beam after a step."""

    parent: int  # its place among the beams of the step before
    token_id: int
    score: float  # sum of its tokens' log-probabilities


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """An answer."""

    token_ids: tuple[int, ...]  # the one that ended it included
    score: float  # sum of log-probabilities / number of tokens ** length_penalty
    is_ended: bool  # by one of the end ids, not by its length


class BeamSearch:
    """One request's search, advanced once for every token. Beams are in order of score, best first."""

    def __init__(self, params: BeamSearchParams, max_tokens: int, end_ids: frozenset[int]) -> None:
        self._params = params
        self._max_tokens = max_tokens
        self._end_ids = end_ids
        self._steps: list[list[Beam]] = []  # the running beams after each step
        self._scores: NDArray[np.float32] = np.zeros(1, dtype=np.float32)  # of the running beams
        self._hypotheses: list[Hypothesis] = []  # the num_beams best so far, in order of discovery
        self.is_done = False

    def advance(self, log_probs: NDArray[np.float32]) -> list[Beam]:
        """One step on from `log_probs` [running beams, vocab_size], of the first step [1, vocab_size].

        Returns the running beams, which are of no use once `is_done`. Every beam has at least one candidate
        that does not end it, so as many go on as the search is wide.
        """
        assert not self.is_done
        num_beams, vocab_size = self._params.num_beams, log_probs.shape[1]
        totals = (log_probs + self._scores[:, None]).reshape(1, -1)
        (ids,) = top_ids(totals, max(2, 1 + len(self._end_ids)) * num_beams)
        scores = totals[0, ids].tolist()
        beams: list[Beam] = []
        for rank, (place, score) in enumerate(zip(ids.tolist(), scores, strict=True)):
            beam = Beam(place // vocab_size, place % vocab_size, score)
            if beam.token_id not in self._end_ids:
                beams.append(beam)
            elif rank < num_beams:
                self._offer((*self._tokens_of(beam.parent), beam.token_id), score, is_ended=True)
            if len(beams) == num_beams:
                break
        self._steps.append(beams)
        self._scores = np.array([beam.score for beam in beams], dtype=np.float32)
        self.is_done = self._cannot_improve(scores[0]) or self._run_out()
        return beams

    def best(self, n: int) -> list[Hypothesis]:
        """The `n` best hypotheses of a search that is done, best first; of equals the later one."""
        assert self.is_done
        return sorted(self._hypotheses, key=lambda hypothesis: hypothesis.score)[::-1][:n]

    def _run_out(self) -> bool:
        """At the last token, the running beams are hypotheses too."""
        if len(self._steps) < self._max_tokens:
            return False
        for index, beam in enumerate(self._steps[-1]):
            self._offer(self._tokens_of(index), beam.score, is_ended=False)
        return True

    def _offer(self, token_ids: tuple[int, ...], log_probability: float, *, is_ended: bool) -> None:
        """Keep a hypothesis if it is among the best; of equally bad ones the oldest goes."""
        score = log_probability / len(token_ids) ** self._params.length_penalty
        kept = self._hypotheses
        if len(kept) == self._params.num_beams:
            worst = min(kept, key=lambda hypothesis: hypothesis.score)
            if score <= worst.score:
                return
            kept.remove(worst)
        kept.append(Hypothesis(token_ids, score, is_ended))

    def _cannot_improve(self, best_log_probability: float) -> bool:
        """Whether the search ends here. `best_log_probability` is that of the step's best candidate, ended
        or not.

        With early_stopping it ends as soon as there are num_beams hypotheses; without, when the best
        candidate would score no better than the worst of them at its present length; with "never", at any
        length it can reach.
        """
        params, kept = self._params, self._hypotheses
        if len(kept) < params.num_beams:
            return False
        if params.early_stopping is True:
            return True
        longest = params.early_stopping == "never" and params.length_penalty > 0
        length = self._max_tokens if longest else len(self._steps)
        attainable: float = best_log_probability / length**params.length_penalty
        return min(hypothesis.score for hypothesis in kept) >= attainable

    def _tokens_of(self, index: int) -> tuple[int, ...]:
        """Tokens of the running beam `index`, first to last."""
        token_ids = []
        for beams in reversed(self._steps):
            token_ids.append(beams[index].token_id)
            index = beams[index].parent
        return tuple(reversed(token_ids))
