"""The rules of a search, against answers of transformers 4.36's own scorer and against all there are."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from service.engine.beam_search import BeamSearch, Hypothesis
from service.engine.sampling_params import BeamSearchParams
from service.engine.token_filters import log_softmax

# transformers 4.36.0 (torch 2.13), BeamSearchScorer driven as GenerationMixin.beam_search drives it, over
# logits_of: [seed, vocab_size, num_beams, n, max_tokens, length_penalty, early_stopping, end_ids,
# [[score, token_ids without the end id], ...]]
REFERENCE = json.loads(Path(__file__).with_name("beam_search_reference.json").read_text(encoding="utf-8"))


def logits_of(seed: int, token_ids: list[int], vocab_size: int) -> list[float]:
    """The same on every machine: from 0 to 5, so fine that no ties decide."""
    state = seed * 7919 + 17
    for token_id in token_ids:
        state = (state * 1103515245 + token_id + 12345) % (1 << 31)
    logits = []
    for _ in range(vocab_size):
        state = (state * 1103515245 + 12345) % (1 << 31)
        logits.append(((state >> 7) % 50021) / 10000)
    return logits


def log_probs_of(seed: int, beams: list[list[int]], vocab_size: int) -> NDArray[np.float32]:
    rows = [logits_of(seed, beam, vocab_size) for beam in beams]
    return log_softmax(np.array(rows, dtype=np.float32))


def run(seed: int, vocab_size: int, search: BeamSearch, n: int) -> list[Hypothesis]:
    beams: list[list[int]] = [[]]
    while not search.is_done:
        going_on = search.advance(log_probs_of(seed, beams, vocab_size))
        beams = [[*beams[beam.parent], beam.token_id] for beam in going_on]
    return search.best(n)


@pytest.mark.parametrize("case", REFERENCE, ids=lambda case: str(case[0]))
def test_answers_are_those_of_transformers(case: list[Any]) -> None:
    seed, vocab_size, num_beams, n, max_tokens, length_penalty, early_stopping, end_ids, expected = case
    params = BeamSearchParams(num_beams, length_penalty, early_stopping)
    found = run(seed, vocab_size, BeamSearch(params, max_tokens, frozenset(end_ids)), n)
    assert [h.score for h in found] == pytest.approx([score for score, _ in expected], abs=1e-4)
    for hypothesis, (_, token_ids) in zip(found, expected, strict=True):
        tokens = list(hypothesis.token_ids)
        assert (tokens[:-1] if hypothesis.is_ended else tokens) == token_ids
        assert hypothesis.is_ended == (tokens[-1] in end_ids)


def test_the_reference_knows_every_rule() -> None:
    assert {case[6] for case in REFERENCE} == {False, True, "never"}
    assert {case[5] for case in REFERENCE} == {-1.0, 0.0, 0.5, 1.0, 2.0}
    assert {len(case[7]) for case in REFERENCE} == {1, 2, 4}


@pytest.mark.parametrize("seed", range(10))
def test_a_search_as_wide_as_everything_finds_the_best_of_all_answers(seed: int) -> None:
    vocab_size, max_tokens = 4, 3
    (best,) = run(seed, vocab_size, BeamSearch(BeamSearchParams(64), max_tokens, frozenset()), 1)

    def log_probability(tokens: tuple[int, ...]) -> float:
        rows = log_probs_of(seed, [list(tokens[:i]) for i in range(max_tokens)], vocab_size)
        return float(sum(row[token] for row, token in zip(rows, tokens, strict=True)))

    answers = list(itertools.product(range(vocab_size), repeat=max_tokens))
    scores = [log_probability(tokens) / max_tokens for tokens in answers]
    assert best.score == pytest.approx(max(scores))
    assert log_probability(best.token_ids) / max_tokens == pytest.approx(max(scores))


def test_one_beam_is_greedy() -> None:
    (best,) = run(5, 40, BeamSearch(BeamSearchParams(1), 6, frozenset()), 1)
    tokens: list[int] = []
    for _ in range(6):
        tokens.append(int(np.argmax(logits_of(5, tokens, 40))))
    assert list(best.token_ids) == tokens
