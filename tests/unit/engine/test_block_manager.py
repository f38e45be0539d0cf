"""Blocks are conserved under any order of growing, sharing and releasing, and the least useful goes first."""

import random

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


def digest(index: int) -> bytes:
    return bytes([index]) * 32


def filled(manager: BlockManager, *contents: int) -> BlockTable:
    """A new table whose blocks are registered."""
    table = manager.new_table(40)
    assert manager.grow(table, len(contents) * manager.block_size)
    for block, content in zip(table.block_indices.tolist(), contents, strict=True):
        manager.register(block, digest(content))
    return table


def known(manager: BlockManager, *contents: int) -> list[int]:
    """Those of `contents` that a chain of one finds."""
    return [content for content in contents if manager.find([digest(content)])]


def test_a_free_block_is_found_until_it_is_needed() -> None:
    manager = BlockManager(4, 4)
    first = filled(manager, 1, 2)
    blocks = first.block_indices.tolist()
    manager.release(first)
    assert (manager.num_free, manager.num_used) == (4, 0)
    assert manager.find(map(digest, (1, 2, 3))) == blocks
    assert manager.find(map(digest, (3, 1))) == []  # a chain is followed from its beginning
    second = filled(manager, 3, 4)  # of the blocks that hold nothing
    assert known(manager, 1, 2, 3, 4) == [1, 2, 3, 4]
    third = filled(manager, 5)
    assert known(manager, 1, 2, 3, 4, 5) == [1, 3, 4, 5]  # the end of a prompt goes before its beginning
    manager.check_integrity([first, second, third])


def test_shared_blocks_are_counted_and_never_evicted() -> None:
    manager = BlockManager(3, 4)
    owner = filled(manager, 1, 2)
    manager.release(owner)
    blocks = manager.find(map(digest, (1, 2)))
    assert manager.num_free_beside(blocks) == 1
    tables = [manager.new_table(40) for _ in range(2)]
    for table in tables:
        manager.share(table, blocks)
    manager.check_integrity(tables)
    assert (manager.num_free, manager.num_free_beside(blocks)) == (1, 1)
    assert not manager.grow(tables[0], 16)
    assert manager.grow(tables[0], 12)
    manager.release(tables[0])
    assert manager.num_used == 2
    manager.check_integrity(tables)
    manager.release(tables[1])
    assert manager.num_free == 3
    assert known(manager, 1, 2) == [1, 2]


def test_the_longest_unused_goes_first() -> None:
    manager = BlockManager(3, 4)
    tables = [filled(manager, content) for content in (1, 2, 3)]
    for index in (1, 0, 2):
        manager.release(tables[index])
    again = manager.new_table(4)
    manager.share(again, manager.find([digest(2)]))
    manager.release(again)
    order = []
    for content in (4, 5, 6):
        order.append(known(manager, 1, 2, 3))
        filled(manager, content)
    assert order == [[1, 2, 3], [2, 3], [2]]


def test_the_first_of_two_equal_blocks_is_known_and_a_forgotten_one_is_not() -> None:
    manager = BlockManager(4, 4)
    first, second = filled(manager, 1), filled(manager, 1)
    assert manager.find([digest(1)]) == first.block_indices.tolist()
    manager.forget(second)
    assert known(manager, 1) == [1]
    manager.forget(first)
    assert known(manager, 1) == []
    manager.check_integrity([first, second])
    manager.release(first)
    manager.release(second)
    manager.check_integrity([first, second])
    assert manager.num_free == 4


@pytest.mark.parametrize("seed", range(20))
def test_random_sharing_conserves_blocks(seed: int) -> None:
    rng = random.Random(seed)
    manager = BlockManager(rng.randint(1, 12), 4)
    tables = [manager.new_table(40) for _ in range(4)]
    for _ in range(200):
        table = rng.choice(tables)
        action = rng.randrange(5)
        if action == 0:
            manager.grow(table, rng.randint(1, 40))
        elif action == 1:
            manager.release(table)
        elif action == 2 and len(table):
            manager.register(rng.choice(table.block_indices.tolist()), digest(rng.randrange(16)))
        elif action == 3 and not len(table):
            start = rng.randrange(16)
            manager.share(table, manager.find(map(digest, range(start, start + 10))))
        elif action == 4 and rng.random() < 0.2:
            manager.forget(table)
        manager.check_integrity(tables)
        assert manager.num_used == len({b for t in tables for b in t.block_indices.tolist()})


DAMAGES = ["leak", "double_use", "double_free", "lost_digest", "two_digests", "evicted_alive", "wrong_list"]


@pytest.mark.parametrize("damage", DAMAGES)
def test_integrity_notices(damage: str) -> None:
    manager = BlockManager(4, 4)
    table, other = filled(manager, 1, 2), manager.new_table(16)
    manager.release(filled(manager, 3))
    manager.check_integrity([table, other])
    if damage == "leak":
        table.clear()
    elif damage == "double_use":
        other.append(int(table.block_indices[0]))
    elif damage == "lost_digest":
        del manager._cached[digest(1)]
    elif damage == "two_digests":
        manager._cached[digest(9)] = 0
    elif damage == "evicted_alive":
        manager._cached_free[0] = None
    elif damage == "wrong_list":
        manager._free.append(manager._cached_free.popitem()[0])
    else:
        twin = BlockTable(4)
        twin.append(int(table.block_indices[0]))
        manager.release(twin)
    with pytest.raises(AssertionError):
        manager.check_integrity([table, other])


def test_a_fork_shares_and_a_write_copies() -> None:
    manager = BlockManager(6, 4)
    parent, child, other = (manager.new_table(20) for _ in range(3))
    manager.grow(parent, 10)
    manager.fork(child, parent, 3)
    manager.fork(other, parent, 2)
    assert child.block_indices.tolist() == parent.block_indices.tolist()
    assert other.block_indices.tolist() == parent.block_indices.tolist()[:2]
    assert manager.num_used == 3
    assert [manager.is_shared(parent, index) for index in range(4)] == [True, True, True, False]
    source, copy = manager.copy_on_write(child, 2) or (-1, -1)
    assert source == parent.block_indices[2]
    assert copy == child.block_indices[2] != source
    assert not manager.is_shared(parent, 2)
    assert not manager.is_shared(child, 2)
    manager.check_integrity([parent, child, other])
    manager.release(parent)
    assert manager.num_used == 3  # the others hold the first two, and one of them its copy
    for table in (child, other):
        manager.release(table)
    assert manager.num_used == 0


def test_a_copy_needs_a_free_block() -> None:
    manager = BlockManager(2, 4)
    parent, child = manager.new_table(8), manager.new_table(8)
    manager.grow(parent, 8)
    manager.fork(child, parent, 2)
    assert manager.copy_on_write(child, 1) is None
    manager.check_integrity([parent, child])


def test_a_copy_may_take_a_cached_block_but_does_not_bear_its_name() -> None:
    manager = BlockManager(2, 4)
    old = filled(manager, 7)
    manager.release(old)
    parent, child = manager.new_table(8), manager.new_table(8)
    manager.grow(parent, 3)
    manager.fork(child, parent, 1)
    assert manager.copy_on_write(child, 0) is not None
    assert known(manager, 7) == []
    manager.check_integrity([parent, child])


@settings(max_examples=100, deadline=None)
@given(
    operations=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)), max_size=60),
    num_blocks=st.integers(1, 12),
)
def test_random_forks_conserve_blocks(operations: list[tuple[int, int, int]], num_blocks: int) -> None:
    manager = BlockManager(num_blocks, 2)
    tables = [manager.new_table(24) for _ in range(4)]
    for what, one, two in operations:
        table, other = tables[one], tables[two]
        if what == 0:
            manager.grow(table, min(2 * len(table) + 2, 24))
        elif what == 1:
            manager.release(table)
        elif what == 2 and table is not other:
            manager.release(table)
            manager.fork(table, other, len(other))
        elif what == 3 and manager.is_shared(table, two):
            free = manager.num_free
            copied = manager.copy_on_write(table, two)
            assert (copied is None) == (free == 0)
        manager.check_integrity(tables)
