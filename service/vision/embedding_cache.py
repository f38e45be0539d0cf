"""Owns the embeddings of slices seen lately, within a budget of bytes; knows no pixels and no threads."""

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# What an entry costs beside its numbers: the digest, the array's head and a place in the table, rounded up.
ENTRY_OVERHEAD_BYTES = 512


@dataclass(frozen=True, slots=True)
class EmbeddingCacheStats:
    """A moment's counters."""

    queries: int  # slices that were needed: hits, and those encoded; once for each request
    hits: int
    bytes: int  # held now, overhead included


class EmbeddingCache:
    """Least recently used goes first. Not thread-safe: its owner locks.

    A budget of 0 keeps nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[bytes, NDArray[np.float32]] = OrderedDict()  # the oldest use first
        self._num_bytes = 0
        self._num_hits = 0
        self._num_misses = 0

    @property
    def stats(self) -> EmbeddingCacheStats:
        """As of now."""
        return EmbeddingCacheStats(self._num_hits + self._num_misses, self._num_hits, self._num_bytes)

    def get(self, digest: bytes) -> NDArray[np.float32] | None:
        """Read-only float32 [query_num, hidden_size], or None, which is counted only when put() follows.

        So a slice that is looked up twice before it is encoded counts once.
        """
        embeddings = self._entries.get(digest)
        if embeddings is not None:
            self._entries.move_to_end(digest)
            self._num_hits += 1
        return embeddings

    def put(self, digest: bytes, embeddings: NDArray[np.float32]) -> None:
        """Keep read-only embeddings that own their memory; not those larger than the whole budget."""
        assert embeddings.flags.owndata, "a view would hold more than its bytes"
        assert not embeddings.flags.writeable, "requests share it"
        self._num_misses += 1
        size = _entry_bytes(embeddings)
        if size > self._max_bytes or digest in self._entries:
            return
        while self._num_bytes + size > self._max_bytes:
            _, oldest = self._entries.popitem(last=False)
            self._num_bytes -= _entry_bytes(oldest)
        self._entries[digest] = embeddings
        self._num_bytes += size


def _entry_bytes(embeddings: NDArray[np.float32]) -> int:
    return embeddings.nbytes + ENTRY_OVERHEAD_BYTES
