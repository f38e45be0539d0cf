"""Owns which KV block belongs to whom: reference counts and the free list; knows no tensor and no token."""

from collections import deque
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

    def clear(self) -> None:
        self._length = 0


class BlockManager:
    """Hands out the `num_blocks` blocks of the KV cache. A block is free when nobody refers to it."""

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self._free: deque[int] = deque(range(num_blocks))
        self._ref_counts = [0] * num_blocks

    @property
    def num_free(self) -> int:
        return len(self._free)

    @property
    def num_used(self) -> int:
        return self.num_blocks - len(self._free)

    def blocks_for(self, num_tokens: int) -> int:
        """How many blocks `num_tokens` tokens fill."""
        return -(-num_tokens // self.block_size)

    def new_table(self, max_num_tokens: int) -> BlockTable:
        """An empty table that can grow to hold `max_num_tokens` tokens."""
        return BlockTable(self.blocks_for(max_num_tokens))

    def grow(self, table: BlockTable, num_tokens: int) -> bool:
        """Append blocks until `table` holds `num_tokens` tokens; False and no change if too few are free."""
        num_missing = self.blocks_for(num_tokens) - len(table)
        if num_missing > len(self._free):
            return False
        for _ in range(num_missing):
            block = self._free.popleft()
            self._ref_counts[block] = 1
            table.append(block)
        return True

    def release(self, table: BlockTable) -> None:
        """Give up the table's references and empty it."""
        for block in table.block_indices.tolist():
            self._ref_counts[block] -= 1
            if self._ref_counts[block] == 0:
                self._free.append(block)
        table.clear()

    def check_integrity(self, tables: Iterable[BlockTable]) -> None:
        """The conservation law, given every live table: each block is free exactly once and unreferenced, or
        not free and referenced exactly as often as tables hold it."""
        held = [0] * self.num_blocks
        for table in tables:
            blocks = table.block_indices.tolist()
            assert len(set(blocks)) == len(blocks), "a table holds a block twice"
            for block in blocks:
                held[block] += 1
        assert held == self._ref_counts, "reference counts differ from what the tables hold"
        free = sorted(self._free)
        assert free == [block for block, count in enumerate(held) if count == 0], "free list is wrong"
