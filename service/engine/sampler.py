"""Chooses the next token of every row of logits; knows no text, no cache and no batch beyond the rows."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from service.engine.answer_matcher import AnswerMatcher
from service.engine.penalties import has_penalties, penalise
from service.engine.sampling_params import SamplingParams
from service.engine.token_events import TokenLogprobs
from service.engine.token_filters import (
    Column,
    Distribution,
    draw,
    gathered_log_softmax,
    log_softmax,
    pieces,
    top_ids,
    top_k_distribution,
    top_p_distributions,
    whole_distribution,
)

FAILED = -1  # in place of a token where the logits are not finite, or a grammar cannot be followed


class SamplerState:
    """What sampling remembers of one sequence: its random stream, which tokens it has generated, and where
    they stand in a grammar."""

    __slots__ = (
        "_counts",
        "_ids",
        "_slots",
        "bias_ids",
        "biases",
        "has_penalties",
        "masked_ids",
        "matcher",
        "num_generated",
        "params",
        "rng",
    )

    def __init__(
        self,
        params: SamplingParams,
        eos_token_id: int,
        vocab_size: int,
        choice_index: int = 0,
        matcher: AnswerMatcher | None = None,
    ) -> None:
        self.params = params
        self.matcher = matcher
        self.has_penalties = has_penalties(params)
        self.num_generated = 0
        # One stream per choice, one draw per token: the answer does not depend on the batch. The first
        # choice's is that of a request with one choice: its spawn key is empty.
        spawn_key = (choice_index,) if choice_index else ()
        self.rng = np.random.default_rng(np.random.SeedSequence(params.seed, spawn_key=spawn_key))
        ends = sorted(i for i in params.stop_token_ids | {eos_token_id} if 0 <= i < vocab_size)
        self.masked_ids = np.array(ends if params.min_tokens else [], dtype=np.int64)
        self.bias_ids = np.array([token_id for token_id, _ in params.logit_bias], dtype=np.int64)
        self.biases = np.array([bias for _, bias in params.logit_bias], dtype=np.float32)
        self._slots: dict[int, int] = {}
        capacity = params.max_tokens if self.has_penalties else 0
        self._ids: NDArray[np.int64] = np.empty(capacity, dtype=np.int64)
        self._counts: NDArray[np.float32] = np.zeros(capacity, dtype=np.float32)

    @property
    def generated_ids(self) -> NDArray[np.int64]:
        """[distinct tokens generated so far]; empty where no penalty asks for them."""
        return self._ids[: len(self._slots)]

    @property
    def generated_counts(self) -> NDArray[np.float32]:
        """[distinct tokens generated so far]: how often each."""
        return self._counts[: len(self._slots)]

    def record(self, token_id: int) -> None:
        """Note that the sequence goes on with `token_id`."""
        self.num_generated += 1
        if not len(self._ids):
            return
        slot = self._slots.setdefault(token_id, len(self._slots))
        self._ids[slot] = token_id
        self._counts[slot] += 1


class Sampler:
    """Stateless but for its vocabulary; every row is treated as if it were alone."""

    def sample(self, logits: NDArray[np.float32], states: Sequence[SamplerState]) -> NDArray[np.int64]:
        """The next token of each row, or FAILED where a row holds NaN or infinity or a matcher gave up.

        `logits` [rows, vocab_size] is overwritten; row i belongs to states[i]. A row that draws advances its
        generator by one number; a failed row does not.
        """
        finite = np.isfinite(logits.max(axis=1)) & np.isfinite(logits.min(axis=1))
        with np.errstate(invalid="ignore"):  # rows that are not finite
            self._restrict(logits, states)
        for row, state in enumerate(states):
            if state.matcher is not None and state.matcher.is_failed:
                finite[row] = False  # its mask may have left nothing to draw from
        tokens = np.full(len(logits), FAILED)
        greedy = [row for row in np.flatnonzero(finite).tolist() if states[row].params.temperature == 0]
        if greedy:
            part = logits if len(greedy) == len(logits) else logits[greedy]
            tokens[greedy] = part.argmax(axis=1)
        for rows, distribution in self._distributions(logits, states, finite):
            uniform = np.array([states[row].rng.random() for row in rows])
            tokens[rows] = draw(distribution, uniform)
        _settle(tokens, states)
        return tokens

    def sample_with_logprobs(
        self, logits: NDArray[np.float32], states: Sequence[SamplerState]
    ) -> tuple[NDArray[np.int64], dict[int, TokenLogprobs]]:
        """As `sample`, and log-probabilities by row for those rows that ask for them and did not fail."""
        asking = [row for row, state in enumerate(states) if state.params.logprobs is not None]
        if not asking:
            return self.sample(logits, states), {}
        raw = logits[asking]
        tokens = self.sample(logits, states)
        places = [place for place, row in enumerate(asking) if tokens[row] != FAILED]
        rows = [asking[place] for place in places]
        counts = [states[row].params.logprobs or 0 for row in rows]
        told = token_logprobs(raw if len(rows) == len(asking) else raw[places], tokens[rows], counts)
        return tokens, dict(zip(rows, told, strict=True))

    def beam_log_probs(
        self, logits: NDArray[np.float32], state: SamplerState, generated: Sequence[NDArray[np.int64]]
    ) -> NDArray[np.float32] | None:
        """What a beam search adds up: log-softmax, then biases and penalties on it, as in transformers.

        `logits` [beams, vocab_size], of one request with `state`; generated[i] [tokens] are those of beam i.
        None where a row holds NaN or infinity.
        """
        if not np.isfinite(logits).all():
            return None
        log_probs = log_softmax(logits)
        log_probs[:, state.bias_ids] += state.biases
        for row, token_ids in zip(log_probs, generated, strict=True):
            if state.has_penalties and len(token_ids):
                ids, counts = np.unique(token_ids, return_counts=True)
                penalise(row[None], [0], [state.params], [ids], [counts])
            if len(token_ids) < state.params.min_tokens:
                row[state.masked_ids] = -np.inf
        return log_probs

    def distributions(
        self, logits: NDArray[np.float32], states: Sequence[SamplerState]
    ) -> Iterator[tuple[list[int], Distribution]]:
        """What `sample` draws from: (rows, distribution) for groups of the rows that draw at all."""
        self._restrict(logits, states)
        yield from self._distributions(logits, states, np.ones(len(logits), dtype=np.bool_))

    def _restrict(self, logits: NDArray[np.float32], states: Sequence[SamplerState]) -> None:
        """Biases, then what may come at all, then penalties."""
        for row, state in enumerate(states):
            if len(state.bias_ids):
                logits[row, state.bias_ids] += state.biases
            if state.matcher is not None:
                state.matcher.mask(logits[row])
        penalised = [row for row, state in enumerate(states) if state.has_penalties and state.num_generated]
        if penalised:
            used = [states[row] for row in penalised]
            params = [state.params for state in used]
            ids = [state.generated_ids for state in used]
            penalise(logits, penalised, params, ids, [state.generated_counts for state in used])
        for row, state in enumerate(states):
            if state.num_generated < state.params.min_tokens:
                logits[row, state.masked_ids] = -np.inf

    def _distributions(
        self, logits: NDArray[np.float32], states: Sequence[SamplerState], usable: NDArray[np.bool_]
    ) -> Iterator[tuple[list[int], Distribution]]:
        """Rows that need the same kind of work together: by top_k, else by whether top_p cuts."""
        groups: dict[tuple[int, bool], list[int]] = defaultdict(list)
        for row, state in enumerate(states):
            if usable[row] and state.params.temperature > 0:
                groups[state.params.top_k, state.params.top_p < 1].append(row)
        for (top_k, cuts), rows in groups.items():
            params = [states[row].params for row in rows]
            temperature = _column([p.temperature for p in params])
            top_p = _column([p.top_p for p in params])
            min_p = _column([p.min_p for p in params])
            part = logits if len(rows) == len(logits) else logits[rows]
            if top_k:
                yield rows, top_k_distribution(part, top_k, temperature, top_p, min_p)
            elif cuts:
                for places, distribution in top_p_distributions(part, temperature, top_p, min_p):
                    yield [rows[place] for place in places], distribution
            else:
                for cut in pieces(*part.shape):
                    yield rows[cut], whole_distribution(part[cut], temperature[cut], min_p[cut])


def _column(values: list[float]) -> Column:
    return np.array(values, dtype=np.float64)[:, None]


def _settle(tokens: NDArray[np.int64], states: Sequence[SamplerState]) -> None:
    """Let grammars have the last word on the tokens chosen, in place."""
    for row, state in enumerate(states):
        if state.matcher is None or tokens[row] == FAILED:
            continue
        tokens[row] = state.matcher.settle(int(tokens[row]))
        if state.matcher.is_failed:
            tokens[row] = FAILED


def token_logprobs(
    logits: NDArray[np.float32], token_ids: NDArray[np.int64], num_top: Sequence[int]
) -> list[TokenLogprobs]:
    """Log-probabilities of token_ids[i] and of the num_top[i] likeliest tokens, by row.

    `logits` [rows, vocab_size] are the model's. Rows that want as many are done together.
    """
    told: list[TokenLogprobs] = [TokenLogprobs(0.0)] * len(num_top)
    for count in set(num_top):
        rows = [row for row, wanted in enumerate(num_top) if wanted == count]
        part = logits if len(rows) == len(logits) else logits[rows]
        chosen = token_ids[rows][:, None]
        ids = np.hstack([chosen, top_ids(part, count)]) if count else chosen
        values = gathered_log_softmax(part, ids)
        for row, row_ids, row_values in zip(rows, ids.tolist(), values.tolist(), strict=True):
            top = zip(row_ids[1:], row_values[1:], strict=True)
            told[row] = TokenLogprobs(row_values[0], tuple(top))
    return told
