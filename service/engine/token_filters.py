"""From logits to the distribution a token is drawn from: temperature, top_k, top_p, min_p; keeps no state.

All functions work on rows of one batch and treat every row alone, so a row's result does not depend on its
neighbours. They return `ids` i64 [rows, c] and `probabilities` f64 [rows, c]: the candidates of each row,
which sum to 1; what a filter removed has probability 0.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

FloatRows = NDArray[np.float32]  # [rows, vocab_size]
Column = NDArray[np.float64]  # [rows, 1], one value per row
Distribution = tuple[NDArray[np.int64], NDArray[np.float64]]

_NUCLEI = (1024, 16384)  # candidates that nearly always hold top_p of the mass, and nearly always else
_GROUPS_PER_CANDIDATE, _LEAST_GROUPS = 8, 512  # so that few of the k likeliest share a group
_WIDE, _STRETCH = 1 << 15, 512  # candidates
_PIECE = 1 << 17  # logits of whole rows that are worked on at once: they stay in the processor's cache


def top_ids(logits: FloatRows, k: int) -> NDArray[np.int64]:
    """Ids of each row's k largest logits, largest first, equals in order of id. [rows, min(k, vocab_size)]

    No logit may be NaN.
    """
    rows, vocab_size = logits.shape
    if k >= vocab_size:
        return _ranked(logits)
    # What is -inf is put in behind, if need be: a row with few tokens left would have it all for candidates.
    threshold = np.maximum(_at_most_kth_largest(logits, k), np.finfo(np.float32).min)
    flat = np.flatnonzero(logits >= threshold)
    row, ids = np.divmod(flat, vocab_size)
    counts = np.bincount(row, minlength=rows)
    place = np.arange(len(flat)) - np.repeat(np.cumsum(counts) - counts, counts)
    shape = rows, max(k, int(counts.max()))
    candidates, values = np.zeros(shape, dtype=np.int64), np.full(shape, -np.inf, dtype=np.float32)
    candidates[row, place], values[row, place] = ids, logits.reshape(-1)[flat]
    found = np.take_along_axis(candidates, _ranked(values)[:, :k], axis=1)
    for short in np.flatnonzero(counts < k).tolist():
        found[short, counts[short] :] = np.flatnonzero(logits[short] == -np.inf)[: k - counts[short]]
    return found


def _ranked(values: FloatRows) -> NDArray[np.int64]:
    """Places of each row's values, largest first, equals in order of place: a stable argsort of -values.

    Value and place are sorted as one integer, several times faster: numpy sorts numbers without branches.
    Bits of floats are in their order as integers, once those of negative ones are turned over.
    """
    bits = (values + np.float32(0)).view(np.int32)  # the sum is 0 for -0 too
    rising = bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))
    keys = -rising.astype(np.int64) << 32
    keys |= np.arange(values.shape[1])
    keys.sort(axis=1)
    keys &= 0xFFFFFFFF
    return keys


def _at_most_kth_largest(logits: FloatRows, k: int) -> FloatRows:
    """A lower bound of each row's k-th largest logit, nearly always close. [rows, 1]

    It is the k-th largest of the maxima of groups: k logits at least reach it. The groups are the ids modulo
    their number, so that the maxima of all are found element by element.
    """
    rows, vocab_size = logits.shape
    num_groups = min(max(_GROUPS_PER_CANDIDATE * k, _LEAST_GROUPS), vocab_size)
    depth = vocab_size // num_groups
    whole = logits[:, : depth * num_groups].reshape(rows, depth, num_groups)
    maxima: FloatRows = whole.max(axis=1)
    rest = logits[:, depth * num_groups :]
    np.maximum(maxima[:, : rest.shape[1]], rest, out=maxima[:, : rest.shape[1]])
    maxima.partition(num_groups - k, axis=1)
    return maxima[:, num_groups - k, None]


def log_softmax(logits: FloatRows) -> FloatRows:
    """Natural logarithms of each row's softmax, as torch.log_softmax has them in f32."""
    highest, log_sums = _log_sums(logits)
    return logits - highest - log_sums


def gathered_log_softmax(logits: FloatRows, ids: NDArray[np.int64]) -> FloatRows:
    """Entries `ids` [rows, n] of log_softmax(logits), the same bits, for less."""
    highest, log_sums = _log_sums(logits)
    return np.take_along_axis(logits, ids, axis=1) - highest - log_sums


def _log_sums(logits: FloatRows) -> tuple[FloatRows, FloatRows]:
    """Each row's largest, and the logarithm of the sum of exp of what the others lack to it. [rows, 1]"""
    highest = logits.max(axis=1, keepdims=True)
    totals = np.empty((len(logits), 1))
    for cut in pieces(*logits.shape):
        shifted = logits[cut] - highest[cut]
        np.exp(shifted, out=shifted)
        totals[cut] = shifted.sum(axis=1, keepdims=True, dtype=np.float64)
    return highest, np.log(totals).astype(np.float32)


def top_k_distribution(
    logits: FloatRows, top_k: int, temperature: Column, top_p: Column, min_p: Column
) -> Distribution:
    """The k likeliest tokens, of these the top_p nucleus, of these what min_p leaves."""
    ids = top_ids(logits, top_k)
    weights = _weights(np.take_along_axis(logits, ids, axis=1), temperature)
    probabilities = weights / weights.sum(axis=1, keepdims=True)
    return ids, _nucleus(probabilities, top_p, min_p)


def top_p_distributions(
    logits: FloatRows, temperature: Column, top_p: Column, min_p: Column
) -> Iterator[tuple[list[int], Distribution]]:
    """The nucleus of the whole vocabulary, without sorting it unless the distribution is very flat.

    Rows come together whose nuclei are found among as many candidates.
    """
    left, part = np.arange(len(logits)), logits
    total = _roughly_total(logits, temperature)
    for width in (*_NUCLEI, logits.shape[1]):
        ids = top_ids(part, width)
        probabilities = _weights(np.take_along_axis(part, ids, axis=1), temperature[left]) / total
        found = (probabilities.sum(axis=1) >= top_p[left, 0]) | (ids.shape[1] == logits.shape[1])
        if found.any():
            rows = left[found]
            yield rows.tolist(), (ids[found], _nucleus(probabilities[found], top_p[rows], min_p[rows]))
        if found.all():
            return
        # Many tokens of little mass each: here the border depends on the total's last digits.
        left = left[~found]
        part = logits[left]
        total = _total(part, temperature[left])


def whole_distribution(logits: FloatRows, temperature: Column, min_p: Column) -> Distribution:
    """The whole vocabulary in order of id, less what min_p removes."""
    weights = _weights(logits, temperature)  # the likeliest token weighs 1
    if min_p.any():
        weights *= weights >= min_p
    weights /= weights.sum(axis=1, keepdims=True)
    return np.broadcast_to(np.arange(logits.shape[1]), logits.shape), weights


def pieces(num_rows: int, vocab_size: int) -> Iterator[slice]:
    """Cuts rows so that what is done to whole ones finds them in the cache again."""
    step = max(1, _PIECE // vocab_size)
    return (slice(begin, begin + step) for begin in range(0, num_rows, step))


def draw(distribution: Distribution, uniform: NDArray[np.float64]) -> NDArray[np.int64]:
    """One token per row by inverse CDF at `uniform` [rows] in [0, 1). -> [rows]

    The CDF runs in order of id, not of probability: two nearly equal logits that swap ranks under rounding
    noise then do not swap places.
    """
    ids, probabilities = distribution
    if not (ids[:, 1:] > ids[:, :-1]).all():
        order = np.argsort(ids, axis=1)
        ids = np.take_along_axis(ids, order, axis=1)
        probabilities = np.take_along_axis(probabilities, order, axis=1)
    places = _inverse_cdf(probabilities, uniform)
    return np.take_along_axis(ids, places[:, None], axis=1)[:, 0]


def _inverse_cdf(probabilities: NDArray[np.float64], uniform: NDArray[np.float64]) -> NDArray[np.int64]:
    """Places at which the running sums of rows first exceed the uniform part of their totals. [rows]"""
    rows, width = probabilities.shape
    if width <= _WIDE:
        cdf = np.cumsum(probabilities, axis=1)
        return _first_above(cdf, uniform * cdf[:, -1])
    # A running sum is slow, one addition waiting for the other: take it over the sums of stretches, and then
    # over the one stretch in which the place lies.
    stretches = np.add.reduceat(probabilities, np.arange(0, width, _STRETCH), axis=1)
    cdf = np.pad(np.cumsum(stretches, axis=1), ((0, 0), (1, 0)))
    threshold = uniform * cdf[:, -1]
    chosen = _first_above(cdf[:, 1:], threshold)
    places = chosen[:, None] * _STRETCH + np.arange(_STRETCH)
    inside = np.take_along_axis(probabilities, np.minimum(places, width - 1), axis=1) * (places < width)
    inside[:, 0] += cdf[np.arange(rows), chosen]
    return chosen * _STRETCH + _first_above(np.cumsum(inside, axis=1), threshold)


def _first_above(cdf: NDArray[np.float64], threshold: NDArray[np.float64]) -> NDArray[np.int64]:
    """Rounding must not carry a threshold to the last of `cdf`: what lies behind has no probability."""
    below_last = np.nextafter(cdf[:, -1], 0.0)
    places: NDArray[np.int64] = (cdf > np.minimum(threshold, below_last)[:, None]).argmax(axis=1)
    return places


def _weights(logits: FloatRows, temperature: Column) -> NDArray[np.float64]:
    """exp((logits - max) / temperature): softmax before its division; the largest is exactly 1."""
    highest = logits.max(axis=1, keepdims=True)
    shifted: NDArray[np.float64] = np.subtract(logits, highest, dtype=np.float64)
    with np.errstate(over="ignore"):  # a tiny temperature sends every other token to -inf
        shifted /= temperature
    np.exp(shifted, out=shifted)
    return shifted


def _total(logits: FloatRows, temperature: Column) -> Column:
    """Sums of `_weights`."""
    cuts = pieces(*logits.shape)
    return np.concatenate(
        [_weights(logits[cut], temperature[cut]).sum(axis=1, keepdims=True) for cut in cuts]
    )


def _roughly_total(logits: FloatRows, temperature: Column) -> Column:
    """As _total to a few in ten million: exponentials of whole rows cost a third in f32, or a tenth."""
    scale = np.minimum(1 / temperature, np.finfo(np.float32).max).astype(np.float32)
    totals = np.empty((len(logits), 1))
    for cut in pieces(*logits.shape):
        shifted = logits[cut] - logits[cut].max(axis=1, keepdims=True)
        with np.errstate(over="ignore"):  # as in _weights
            shifted *= scale[cut]
        np.exp(shifted, out=shifted)
        totals[cut] = shifted.sum(axis=1, keepdims=True, dtype=np.float64)
    return totals


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
