"""Least recently used goes first; the budget holds after every step; counters count what was needed once."""

from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.vision.embedding_cache import ENTRY_OVERHEAD_BYTES, EmbeddingCache, EmbeddingCacheStats

SHAPE = (2, 3)
ENTRY = 2 * 3 * 4 + ENTRY_OVERHEAD_BYTES


def embeddings(value: float = 0, rows: int = 2) -> NDArray[np.float32]:
    array = np.full((rows, 3), value, dtype=np.float32)
    array.setflags(write=False)
    return array


def digest(number: int) -> bytes:
    return number.to_bytes(32, "big")


def held(cache: EmbeddingCache, numbers: range) -> list[int]:
    """Which are there, found in ascending order (each find is a use)."""
    return [number for number in numbers if cache.get(digest(number)) is not None]


def test_what_was_put_is_found() -> None:
    cache = EmbeddingCache(10 * ENTRY)
    kept = embeddings(1)
    cache.put(digest(1), kept)
    assert cache.get(digest(1)) is kept
    assert cache.get(digest(2)) is None


def test_the_least_recently_used_goes_first() -> None:
    cache = EmbeddingCache(3 * ENTRY)
    for number in range(3):
        cache.put(digest(number), embeddings())
    cache.get(digest(0))
    cache.put(digest(3), embeddings())
    assert held(cache, range(5)) == [0, 2, 3]
    cache.put(digest(4), embeddings())
    assert held(cache, range(5)) == [2, 3, 4]


def test_the_budget_is_met_to_the_byte() -> None:
    for spare, expected in ((0, [0, 1]), (-1, [1])):
        cache = EmbeddingCache(2 * ENTRY + spare)
        cache.put(digest(0), embeddings())
        cache.put(digest(1), embeddings())
        assert cache.stats.bytes == len(expected) * ENTRY
        assert held(cache, range(2)) == expected


def test_a_large_one_pushes_out_several() -> None:
    cache = EmbeddingCache(3 * ENTRY)
    for number in range(3):
        cache.put(digest(number), embeddings())
    cache.put(digest(3), embeddings(rows=3))  # 12 bytes more than the others
    assert held(cache, range(4)) == [2, 3]
    assert cache.stats.bytes == 2 * ENTRY + 12


def test_what_is_larger_than_the_budget_pushes_nothing_out() -> None:
    cache = EmbeddingCache(ENTRY)
    cache.put(digest(0), embeddings())
    cache.put(digest(1), embeddings(rows=3))
    assert held(cache, range(2)) == [0]


def test_a_budget_of_nothing_keeps_nothing() -> None:
    cache = EmbeddingCache(0)
    cache.put(digest(0), embeddings())
    assert cache.get(digest(0)) is None
    assert cache.stats == EmbeddingCacheStats(queries=1, hits=0, bytes=0)


def test_a_second_look_before_encoding_is_no_second_query() -> None:
    cache = EmbeddingCache(ENTRY)
    cache.get(digest(0))
    cache.get(digest(0))
    cache.put(digest(0), embeddings())
    cache.get(digest(0))
    assert cache.stats == EmbeddingCacheStats(queries=2, hits=1, bytes=ENTRY)


@pytest.mark.parametrize("array", [np.zeros(SHAPE, np.float32), embeddings(rows=4)[:2]])
def test_only_arrays_nobody_can_change_or_grow_are_kept(array: NDArray[np.float32]) -> None:
    with pytest.raises(AssertionError):
        EmbeddingCache(10 * ENTRY).put(digest(0), array)


@settings(max_examples=50, deadline=None)
@given(
    budget=st.integers(0, 4 * ENTRY),
    steps=st.lists(st.tuples(st.booleans(), st.integers(0, 5), st.integers(1, 9)), max_size=40),
)
def test_any_history_equals_a_plain_list(budget: int, steps: list[tuple[bool, int, int]]) -> None:
    cache = EmbeddingCache(budget)
    expected: OrderedDict[int, int] = OrderedDict()  # number -> bytes, oldest use first
    for is_put, number, rows in steps:
        if is_put and number not in expected:
            cache.put(digest(number), embeddings(number, rows))
            size = rows * 12 + ENTRY_OVERHEAD_BYTES
            if size <= budget:
                expected[number] = size
            while sum(expected.values()) > budget:
                expected.popitem(last=False)
        elif not is_put:
            found = cache.get(digest(number))
            assert (found is not None) == (number in expected)
            if found is not None:
                assert (found == number).all()
                expected.move_to_end(number)
        assert cache.stats.bytes == sum(expected.values()) <= budget
