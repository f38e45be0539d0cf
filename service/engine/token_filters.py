"""From logits to the distribution a token is drawn from: temperature, top_k, top_p, min_p; keeps no state.

All functions work on rows of one batch and treat every row alone, so a row's result does not depend on its
neighbours. They return `ids` i64 [rows, c] and `probabilities` f64 [rows, c]: the candidates of each row,
which sum to 1; what a filter removed has probability 0.
"""

import numpy as np
from numpy.typing import NDArray

FloatRows = NDArray[np.float32]  # [rows, vocab_size]
Column = NDArray[np.float64]  # [rows, 1], one value per row
Distribution = tuple[NDArray[np.int64], NDArray[np.float64]]

_NUCLEUS = 1024  # candidates that nearly always hold top_p of the mass


def top_ids(logits: FloatRows, k: int) -> NDArray[np.int64]:
    """Ids of each row's k largest logits, largest first, equals in order of id. [rows, min(k, vocab_size)]"""
    rows, vocab_size = logits.shape
    if k < vocab_size:
        candidates = np.sort(np.argpartition(logits, -k, axis=1)[:, -k:], axis=1)
    else:
        candidates = np.broadcast_to(np.arange(vocab_size), (rows, vocab_size))
    values = np.take_along_axis(logits, candidates, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    return np.take_along_axis(candidates, order, axis=1)


def log_softmax(logits: FloatRows) -> FloatRows:
    """Natural logarithms of each row's softmax, as torch.log_softmax has them in f32."""
    shifted: FloatRows = logits - logits.max(axis=1, keepdims=True)
    total = np.exp(shifted).sum(axis=1, keepdims=True, dtype=np.float64)
    shifted -= np.log(total).astype(np.float32)
    return shifted


def top_k_distribution(
    logits: FloatRows, top_k: int, temperature: Column, top_p: Column, min_p: Column
) -> Distribution:
    """The k likeliest tokens, of these the top_p nucleus, of these what min_p leaves."""
    ids = top_ids(logits, top_k)
    weights = _weights(np.take_along_axis(logits, ids, axis=1), temperature)
    probabilities = weights / weights.sum(axis=1, keepdims=True)
    return ids, _nucleus(probabilities, top_p, min_p)


def top_p_distribution(logits: FloatRows, temperature: Column, top_p: Column, min_p: Column) -> Distribution:
    """The nucleus of the whole vocabulary, without sorting it unless the distribution is very flat."""
    total = _weights(logits, temperature).sum(axis=1, keepdims=True)
    ids = top_ids(logits, _NUCLEUS)
    probabilities = _weights(np.take_along_axis(logits, ids, axis=1), temperature) / total
    if (probabilities.sum(axis=1, keepdims=True) < top_p).any() and ids.shape[1] < logits.shape[1]:
        ids = top_ids(logits, logits.shape[1])
        probabilities = _weights(np.take_along_axis(logits, ids, axis=1), temperature) / total
    return ids, _nucleus(probabilities, top_p, min_p)


def whole_distribution(logits: FloatRows, temperature: Column, min_p: Column) -> Distribution:
    """The whole vocabulary in order of id, less what min_p removes."""
    weights = _weights(logits, temperature)  # the likeliest token weighs 1
    weights *= weights >= min_p
    ids = np.broadcast_to(np.arange(logits.shape[1]), logits.shape)
    return ids, weights / weights.sum(axis=1, keepdims=True)


def draw(distribution: Distribution, uniform: NDArray[np.float64]) -> NDArray[np.int64]:
    """One token per row by inverse CDF at `uniform` [rows] in [0, 1). -> [rows]

    The CDF runs in order of id, not of probability: two nearly equal logits that swap ranks under rounding
    noise then do not swap places.
    """
    ids, probabilities = distribution
    order = np.argsort(ids, axis=1, kind="stable")
    cdf = np.cumsum(np.take_along_axis(probabilities, order, axis=1), axis=1)
    total = cdf[:, -1]
    threshold = np.minimum(uniform * total, np.nextafter(total, 0.0))
    places = (cdf <= threshold[:, None]).sum(axis=1)
    return np.take_along_axis(np.take_along_axis(ids, order, axis=1), places[:, None], axis=1)[:, 0]


def _weights(logits: FloatRows, temperature: Column) -> NDArray[np.float64]:
    """exp((logits - max) / temperature): softmax before its division; the largest is exactly 1."""
    shifted: NDArray[np.float64] = logits.astype(np.float64)
    shifted -= logits.max(axis=1, keepdims=True)
    with np.errstate(over="ignore"):  # a tiny temperature sends every other token to -inf
        shifted /= temperature
    np.exp(shifted, out=shifted)
    return shifted


def _nucleus(probabilities: NDArray[np.float64], top_p: Column, min_p: Column) -> NDArray[np.float64]:
    """Filter rows sorted by falling probability, and renormalise.

    A token stays while the likelier ones together have less than top_p: transformers' TopPLogitsWarper read
    from the other end. min_p is relative to the likeliest, so no renormalisation comes between. The first
    token always stays.
    """
    before = np.cumsum(probabilities, axis=1) - probabilities
    # A top_p of 1 cuts nothing; rounding must not make the sum of all reach it before the last token.
    keep = ((before < top_p) | (top_p >= 1)) & (probabilities >= min_p * probabilities[:, :1])
    keep[:, 0] = True
    kept: NDArray[np.float64] = probabilities * keep
    kept /= kept.sum(axis=1, keepdims=True)
    return kept
