"""Owns which KV block belongs to whom and what its content is known by; knows no tensor and no token."""

from collections import OrderedDict, deque
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


class BlockTable:
    """The blocks of one sequence, in token order: token i lives in block `block_indices[i // block_size]`."""

    __slots__ = ("_buffer", "_length")

    def __init__(self, capacity: int) -> None:
        self._buffer: NDArray[np.int32] = np.empty(capacity, dtype=np.int32)
        self._length = 0

    def __len__(self) -> int:
        return self._length

    @property
    def block_indices(self) -> NDArray[np.int32]:
        """[num_blocks] view; valid until the table changes."""
        return self._buffer[: self._length]

    def append(self, block: int) -> None:
        self._buffer[self._length] = block
        self._length += 1

    def replace(self, index: int, block: int) -> None:
        self._buffer[index] = block

    def clear(self) -> None:
        self._length = 0


class BlockManager:
    """Hands out the `num_blocks` blocks of the KV cache. A block is free when nobody refers to it.

    A block registered under the digest of its content can be shared, and stays known when it becomes free: it
    is handed out anew only when no other is left, the longest unused first.
    """

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self._free: deque[int] = deque(range(num_blocks))  # those without a digest
        self._cached_free: OrderedDict[int, None] = OrderedDict()  # those with one, longest unused first
        self._ref_counts = [0] * num_blocks
        self._digests: list[bytes | None] = [None] * num_blocks
        self._cached: dict[bytes, int] = {}  # the inverse of _digests

    @property
    def num_free(self) -> int:
        return len(self._free) + len(self._cached_free)

    @property
    def num_used(self) -> int:
        return self.num_blocks - self.num_free

    def blocks_for(self, num_tokens: int) -> int:
        """How many blocks `num_tokens` tokens fill."""
        return -(-num_tokens // self.block_size)

    def new_table(self, max_num_tokens: int) -> BlockTable:
        """An empty table that can grow to hold `max_num_tokens` tokens."""
        return BlockTable(self.blocks_for(max_num_tokens))

    def grow(self, table: BlockTable, num_tokens: int) -> bool:
        """Append blocks until `table` holds `num_tokens` tokens; False and no change if too few are free."""
        num_missing = self.blocks_for(num_tokens) - len(table)
        if num_missing <= 0:  # nearly always
            return True
        if num_missing > self.num_free:
            return False
        for _ in range(num_missing):
            table.append(self._take())
        return True

    def _take(self) -> int:
        block = self._free.popleft() if self._free else self._evict()
        self._ref_counts[block] = 1
        return block

    def _evict(self) -> int:
        block, _ = self._cached_free.popitem(last=False)
        self._unregister(block)
        return block

    def release(self, table: BlockTable) -> None:
        """Give up the table's references and empty it.

        From the end: a block is of use only together with those before it, so the last shall go first.
        """
        for block in reversed(table.block_indices.tolist()):
            self._ref_counts[block] -= 1
            if self._ref_counts[block] > 0:
                continue
            if self._digests[block] is None:
                self._free.append(block)
            else:
                self._cached_free[block] = None
        table.clear()

    def fork(self, table: BlockTable, parent: BlockTable, num_blocks: int) -> None:
        """Append the first `num_blocks` of `parent` to an empty table: both hold them from now on."""
        assert len(table) == 0, "a fork starts with its parent's beginning"
        for block in parent.block_indices[:num_blocks].tolist():
            self._ref_counts[block] += 1
            table.append(block)

    def is_shared(self, table: BlockTable, index: int) -> bool:
        """Whether somebody else holds the `index`-th block too; a block yet to be appended nobody does."""
        return index < len(table) and self._ref_counts[table.block_indices[index]] > 1

    def copy_on_write(self, table: BlockTable, index: int) -> tuple[int, int] | None:
        """Put a block of its own in place of the shared `index`-th one, before it is written to.

        (source, destination) of the copy that is to be made of the content; None and no change if no block
        is free.
        """
        if self.num_free == 0:
            return None
        source, copy = int(table.block_indices[index]), self._take()
        self._ref_counts[source] -= 1
        table.replace(index, copy)
        return source, copy

    def find(self, digests: Iterable[bytes]) -> list[int]:
        """Blocks that hold the longest known part of a chain of digests; changes nothing."""
        blocks = []
        for digest in digests:
            block = self._cached.get(digest)
            if block is None:
                break
            blocks.append(block)
        return blocks

    def num_free_beside(self, blocks: Iterable[int]) -> int:
        """How many blocks would still be free if `blocks` were shared."""
        return self.num_free - sum(self._ref_counts[block] == 0 for block in blocks)

    def share(self, table: BlockTable, blocks: Iterable[int]) -> None:
        """Append blocks that `find` gave to an empty table."""
        assert len(table) == 0, "a shared prefix stands at the beginning"
        for block in blocks:
            if self._ref_counts[block] == 0:
                del self._cached_free[block]
            self._ref_counts[block] += 1
            table.append(block)

    def register(self, block: int, digest: bytes) -> None:
        """Make a referenced block's content known, unless another block is known for the same.

        Of two sequences that compute the same at the same time, the second so keeps a copy of its own.
        """
        assert self._ref_counts[block] > 0, "a free block is registered"
        if digest not in self._cached and self._digests[block] is None:
            self._digests[block] = digest
            self._cached[digest] = block

    def forget(self, table: BlockTable) -> None:
        """Nobody shall find the table's blocks any more; who shares them keeps them."""
        for block in table.block_indices.tolist():
            self._unregister(block)

    def _unregister(self, block: int) -> None:
        digest, self._digests[block] = self._digests[block], None
        if digest is not None:
            del self._cached[digest]

    def check_integrity(self, tables: Iterable[BlockTable]) -> None:
        """The conservation law, given every live table: each block is referenced exactly as often as tables
        hold it, and if nobody does it is free exactly once: among the cached if it has a digest, else among
        the others. Blocks with a digest and known digests are each other's inverse."""
        held = [0] * self.num_blocks
        for table in tables:
            blocks = table.block_indices.tolist()
            assert len(set(blocks)) == len(blocks), "a table holds a block twice"
            for block in blocks:
                held[block] += 1
        assert held == self._ref_counts, "reference counts differ from what the tables hold"
        idle = [block for block, count in enumerate(held) if count == 0]
        assert sorted(self._free) == [b for b in idle if self._digests[b] is None], "free list is wrong"
        assert sorted(self._cached_free) == [b for b in idle if self._digests[b] is not None], (
            "list of cached free blocks is wrong"
        )
        known = {digest: block for block, digest in enumerate(self._digests) if digest is not None}
        assert known == self._cached, "digests and blocks differ"
        assert len(known) == sum(digest is not None for digest in self._digests), "two blocks, one digest"
