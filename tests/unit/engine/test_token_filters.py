"""The filters against definitions written out one token at a time."""

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.engine.token_filters import (
    Column,
    Distribution,
    draw,
    gathered_log_softmax,
    log_softmax,
    top_ids,
    top_k_distribution,
    top_p_distributions,
    whole_distribution,
)


def column(*values: float) -> Column:
    return np.array(values, dtype=np.float64)[:, None]


def random_logits(seed: int, rows: int, vocab_size: int) -> NDArray[np.float32]:
    return (np.random.default_rng(seed).standard_normal((rows, vocab_size)) * 4).astype(np.float32)


def as_dict(distribution: Distribution, row: int = 0) -> dict[int, float]:
    """Token -> probability, of what is left."""
    ids, probabilities = distribution
    pairs = zip(ids[row].tolist(), probabilities[row].tolist(), strict=True)
    return {token: p for token, p in pairs if p > 0}


def top_p_distribution(
    logits: NDArray[np.float32], temperature: Column, top_p: Column, min_p: Column
) -> Distribution:
    """Of a single row."""
    ((rows, distribution),) = top_p_distributions(logits, temperature, top_p, min_p)
    assert rows == [0]
    return distribution


def slow_filter(
    logits: NDArray[np.float32], top_k: int, temperature: float, top_p: float, min_p: float
) -> dict[int, float]:
    """The definition: sort, cut, cut, cut, renormalise each time."""
    ranked = sorted(range(len(logits)), key=lambda i: (-logits[i], i))[: top_k or None]
    highest = float(logits[ranked[0]])
    weights = {i: math.exp((float(logits[i]) - highest) / temperature) for i in ranked}
    total = math.fsum(weights.values())
    kept: list[int] = []
    mass = 0.0
    for i in ranked:
        if kept and top_p < 1 and mass >= top_p:
            break
        kept.append(i)
        mass += weights[i] / total
    kept = [i for i in kept if weights[i] >= min_p * weights[ranked[0]]]
    total = math.fsum(weights[i] for i in kept)
    return {i: weights[i] / total for i in kept}


@settings(max_examples=50, deadline=None)
@example(seed=0, top_k=0, temperature=0.375, top_p=1.0, min_p=0.0)  # rounding reaches 1 before the last
@example(seed=0, top_k=60, temperature=0.375, top_p=1.0, min_p=0.0)
@given(
    seed=st.integers(0, 1000),
    top_k=st.sampled_from([0, 1, 3, 17, 60, 100]),
    temperature=st.floats(0.1, 3),
    top_p=st.sampled_from([0.05, 0.37, 0.8, 0.99, 1.0]),
    min_p=st.sampled_from([0.0, 0.02, 0.3, 1.0]),
)
def test_filters_equal_the_definition(
    seed: int, top_k: int, temperature: float, top_p: float, min_p: float
) -> None:
    logits = random_logits(seed, 1, 60)
    settings_ = column(temperature), column(top_p), column(min_p)
    if top_k:
        distribution = top_k_distribution(logits, top_k, *settings_)
    elif top_p < 1:
        distribution = top_p_distribution(logits, *settings_)
    else:
        distribution = whole_distribution(logits, column(temperature), column(min_p))
    expected = slow_filter(logits[0], top_k, temperature, top_p, min_p)
    assert as_dict(distribution) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("k", [1, 2, 50, 700, 4999, 5000, 9999])
@pytest.mark.parametrize("num_masked", [0, 4200, 4998])
def test_top_ids_are_sorted_and_break_ties_by_id(k: int, num_masked: int) -> None:
    logits = np.round(random_logits(3, 3, 5000)).astype(np.float32)  # many ties
    logits[1] = random_logits(4, 1, 5000)[0]
    logits[2, np.random.default_rng(5).permutation(5000)[:num_masked]] = -np.inf
    ids = top_ids(logits, k)
    for row in range(3):
        assert ids[row].tolist() == sorted(range(5000), key=lambda i: (-logits[row, i], i))[:k]


def test_a_flat_nucleus_goes_beyond_its_first_candidates() -> None:
    logits = random_logits(0, 2, 4000)
    logits[0] *= 1e-3  # nearly uniform: 0.8 of the mass is some 3200 tokens
    pairs = list(top_p_distributions(logits, column(1, 1), column(0.8, 0.8), column(0, 0)))
    assert [rows for rows, _ in pairs] == [[1], [0]]
    for (row,), distribution in pairs:
        expected = slow_filter(logits[row], 0, 1.0, 0.8, 0.0)
        # At the border of the nucleus the two sums may round differently, so one token may come or go.
        assert abs(len(as_dict(distribution)) - len(expected)) <= 1
    assert len(as_dict(pairs[1][1])) > 3000
    alone = top_p_distribution(logits[1:], column(1), column(0.8), column(0))
    assert as_dict(alone) == as_dict(pairs[0][1])


def test_at_least_one_token_stays() -> None:
    logits = random_logits(1, 1, 30)
    best = int(logits.argmax())
    assert as_dict(top_k_distribution(logits, 5, column(1), column(0.0), column(1.0))) == {best: 1.0}
    assert as_dict(top_p_distribution(logits, column(1), column(1e-9), column(0.0))) == {best: 1.0}


def test_a_tiny_temperature_is_greedy_and_nothing_overflows() -> None:
    logits = random_logits(2, 1, 30)
    best = int(logits.argmax())
    assert as_dict(whole_distribution(logits, column(1e-300), column(0.0))) == {best: 1.0}
    assert as_dict(top_k_distribution(logits, 8, column(1e-300), column(1.0), column(0.0))) == {best: 1.0}


def test_masked_tokens_have_no_mass() -> None:
    logits = random_logits(4, 1, 30)
    logits[0, :25] = -np.inf
    for distribution in (
        whole_distribution(logits, column(1), column(0.0)),
        top_k_distribution(logits, 20, column(1), column(1.0), column(0.0)),
        top_p_distribution(logits, column(1), column(0.999), column(0.0)),
    ):
        assert min(as_dict(distribution)) >= 25


@settings(max_examples=50, deadline=None)
@given(uniform=st.floats(0, 1, exclude_max=True))
def test_draw_is_the_inverse_cdf_in_order_of_id(uniform: float) -> None:
    ids = np.array([[7, 2, 9, 4]])
    probabilities = np.array([[0.5, 0.25, 0.0, 0.25]])
    expected = 2 if uniform < 0.25 else 4 if uniform < 0.5 else 7
    assert draw((ids, probabilities), np.array([uniform])).tolist() == [expected]


def test_a_wide_draw_is_the_inverse_cdf_too() -> None:
    """Over stretches without any probability, and where nothing is left behind the last one."""
    rng = np.random.default_rng(0)
    probabilities = rng.random((2, 40_000))
    probabilities[:, 1000:3000] = probabilities[:, 39_000:] = 0
    probabilities[0, rng.permutation(40_000)[:30_000]] = 0
    ids = np.broadcast_to(np.arange(40_000), probabilities.shape)
    cdf = np.cumsum(probabilities, axis=1)
    for uniform in (0.0, *rng.random(200).tolist(), 1 - 2**-53):
        drawn = draw((ids, probabilities), np.array([uniform, uniform]))
        for row in range(2):
            assert probabilities[row, drawn[row]] > 0
            # Up to rounding, which may decide between neighbours.
            least, most = uniform * cdf[row, -1] * np.array([1 - 1e-12, 1 + 1e-12])
            assert cdf[row, drawn[row]] >= least
            assert drawn[row] == 0 or cdf[row, drawn[row] - 1] <= most


def test_entries_of_log_softmax_are_its_bits() -> None:
    logits = random_logits(7, 3, 2000)
    ids = np.random.default_rng(1).integers(0, 2000, (3, 9))
    assert np.array_equal(gathered_log_softmax(logits, ids), np.take_along_axis(log_softmax(logits), ids, 1))
