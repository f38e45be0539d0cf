"""Blocks are conserved under any order of growing and releasing."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.engine.block_manager import BlockManager, BlockTable

OPERATIONS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40)), max_size=60)


@settings(max_examples=50, deadline=None)
@given(operations=OPERATIONS, num_blocks=st.integers(1, 12), block_size=st.integers(1, 7))
def test_random_growth_against_a_count(
    operations: list[tuple[int, int]], num_blocks: int, block_size: int
) -> None:
    manager = BlockManager(num_blocks, block_size)
    tables = [manager.new_table(40) for _ in range(4)]
    held = [0, 0, 0, 0]  # blocks a table should have
    for which, num_tokens in operations:
        if num_tokens == 0:
            manager.release(tables[which])
            held[which] = 0
        else:
            wanted = max(held[which], (num_tokens + block_size - 1) // block_size)
            fits = sum(held) - held[which] + wanted <= num_blocks
            assert manager.grow(tables[which], num_tokens) is fits
            held[which] = wanted if fits else held[which]
        manager.check_integrity(tables)
        assert [len(table) for table in tables] == held
        assert manager.num_free == num_blocks - sum(held)
        assert manager.num_used == sum(held)


def test_growth_keeps_the_blocks_already_there() -> None:
    manager = BlockManager(8, 4)
    table = manager.new_table(32)
    manager.grow(table, 5)
    before = table.block_indices.tolist()
    manager.grow(table, 30)
    assert table.block_indices.tolist()[:2] == before
    assert len(table) == 8


@pytest.mark.parametrize("damage", ["leak", "double_use", "double_free"])
def test_integrity_notices(damage: str) -> None:
    manager = BlockManager(4, 4)
    table, other = manager.new_table(16), manager.new_table(16)
    manager.grow(table, 8)
    manager.check_integrity([table, other])
    if damage == "leak":
        table.clear()
    elif damage == "double_use":
        other.append(int(table.block_indices[0]))
    else:
        twin = BlockTable(4)
        twin.append(int(table.block_indices[0]))
        manager.release(twin)
    with pytest.raises(AssertionError):
        manager.check_integrity([table, other])
