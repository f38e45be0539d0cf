"""The scheduler against a slow simulation, and the laws every step obeys."""

import random
from dataclasses import dataclass, field
from typing import get_args

import numpy as np
import pytest

from service.engine.batch import Batch
from service.engine.block_manager import BlockManager, BlockTable
from service.engine.sampler import SamplerState
from service.engine.sampling_params import SamplingParams
from service.engine.scheduler import PrefixCaching, Scheduler, min_batched_tokens
from service.engine.sequence import Sequence
from service.engine.sequence_group import SequenceGroup
from service.engine.token_events import EngineRequest
from tests.unit.engine.scripted_model import EOS, VOCAB_SIZE


def make_group(
    scheduler: Scheduler, sequence_id: int, prompt: int | list[int], max_tokens: int, priority: int = 0
) -> SequenceGroup:
    """A request for one answer. `prompt` is its tokens, or how many they are."""
    sampling = SamplingParams(max_tokens=max_tokens)
    tokens = [5] * prompt if isinstance(prompt, int) else prompt
    sequence = Sequence(
        sequence_id,
        EngineRequest(str(sequence_id), np.array(tokens, dtype=np.int64), (), sampling, priority=priority),
        scheduler.block_manager.new_table(len(tokens) + max_tokens),
        SamplerState(sampling, EOS, VOCAB_SIZE),
        EOS,
    )
    return SequenceGroup(sequence)


def make_scheduler(
    num_blocks: int,
    block_size: int = 4,
    max_num_seqs: int = 4,
    budget: int = 16,
    caching: PrefixCaching = "off",
) -> Scheduler:
    return Scheduler(BlockManager(num_blocks, block_size), max_num_seqs, budget, caching)


def advance(batch: Batch, groups: dict[int, SequenceGroup], scheduler: Scheduler) -> None:
    """What the step loop does after a run, with token 7 sampled everywhere."""
    for chunk in batch.chunks:
        group = groups[chunk.sequence_id]
        (sequence,) = group.sequences
        scheduler.advance(sequence, len(chunk.token_ids))
        if chunk.samples and sequence.append(7) is not None:
            scheduler.remove(group)
            del groups[chunk.sequence_id]


def tables_of(groups: dict[int, SequenceGroup]) -> list[BlockTable]:
    return [sequence.block_table for group in groups.values() for sequence in group.sequences]


def chunks_of(batch: Batch) -> list[tuple[int, int, int]]:
    return [(chunk.sequence_id, chunk.past_len, len(chunk.token_ids)) for chunk in batch.chunks]


@dataclass(eq=False)
class Block:
    """A block of the simulation, which holds what it is known for in full."""

    content: tuple[int, ...] | None = None  # every token up to its end
    num_holders: int = 0
    freed: int = 0  # when it lost its last holder


@dataclass(eq=False)
class Item:
    """A sequence of the simulation."""

    name: int
    tokens: list[int]
    left: int  # tokens to generate
    priority: int = 0
    done: int = 0  # computed tokens
    blocks: list[Block] = field(default_factory=list)  # none: waiting
    num_cached: int | None = None


class Simulation:
    """The policy as one would explain it, everything looked up by looking through everything."""

    def __init__(
        self, num_blocks: int, block_size: int, max_num_seqs: int, budget: int, caching: PrefixCaching
    ) -> None:
        self.block_size, self.max_num_seqs, self.budget = block_size, max_num_seqs, budget
        self.caching = caching
        self.blocks = [Block() for _ in range(num_blocks)]
        self.items: list[Item] = []  # by priority, then arrival
        self.num_preemptions = self.clock = 0

    def add(self, item: Item) -> None:
        self.items.append(item)
        self.items.sort(key=lambda item: (item.priority, item.name))

    def free(self) -> list[Block]:
        return [block for block in self.blocks if not block.num_holders]

    def running(self) -> list[Item]:
        return [item for item in self.items if item.blocks]

    def blocks_for(self, item: Item) -> int:
        return (len(item.tokens) + self.block_size - 1) // self.block_size

    def grow(self, item: Item) -> None:
        while len(item.blocks) < self.blocks_for(item):
            block = min(self.free(), key=lambda b: (b.content is not None, b.freed))
            block.content, block.num_holders = None, 1
            item.blocks.append(block)

    def release(self, item: Item) -> None:
        for block in reversed(item.blocks):
            block.num_holders -= 1
            self.clock += 1
            block.freed = self.clock
        item.blocks, item.done = [], 0

    def known(self, content: list[int]) -> Block | None:
        return next((block for block in self.blocks if block.content == tuple(content)), None)

    def cached(self, item: Item) -> list[Block]:
        found: list[Block] = []
        for end in range(self.block_size, len(item.tokens), self.block_size):
            block = self.known(item.tokens[:end])
            if block is None:
                break
            found.append(block)
        return found

    def step(self) -> list[tuple[int, int, int]]:
        chunks = []
        for item in self.running():
            if item.blocks and len(item.tokens) - item.done == 1:
                while item.blocks and len(self.free()) < self.blocks_for(item) - len(item.blocks):
                    self.release(self.running()[-1])
                    self.num_preemptions += 1
                if item.blocks:
                    self.grow(item)
                    chunks.append((item.name, item.done, 1))
        left = self.budget - len(chunks)
        somebody_waits = False
        for item in self.items:
            if not item.blocks:
                if somebody_waits or not self.admit(item, left):
                    somebody_waits = True  # nobody overtakes
                    continue
            elif len(item.tokens) - item.done == 1:
                continue
            todo = len(item.tokens) - item.done
            if todo > left:
                todo = left // self.block_size * self.block_size
                left = 0
            else:
                left -= todo
            if todo:
                chunks.append((item.name, item.done, todo))
        return chunks

    def admit(self, item: Item, left: int) -> bool:
        cached = self.cached(item)
        todo = len(item.tokens) - len(cached) * self.block_size
        missing = self.blocks_for(item) - len(cached) + len(self.running())
        full = len(self.running()) == self.max_num_seqs
        cut = todo > left and left < self.block_size
        if full or cut or missing > len([block for block in self.free() if block not in cached]):
            return False
        for block in cached:
            block.num_holders += 1
        item.blocks, item.done = cached, len(cached) * self.block_size
        if item.num_cached is None:
            item.num_cached = item.done
        self.grow(item)
        return True

    def advance(self, chunks: list[tuple[int, int, int]]) -> None:
        by_name = {item.name: item for item in self.items}
        for name, begin, num_tokens in chunks:
            item = by_name[name]
            item.done += num_tokens
            for index, block in enumerate(item.blocks):
                start, end = index * self.block_size, (index + 1) * self.block_size
                filled = begin < end <= item.done and self.caching != "off"
                whole = begin <= start or self.caching == "all"
                if filled and whole and self.known(item.tokens[:end]) is None:
                    block.content = tuple(item.tokens[:end])
            if item.done == len(item.tokens):
                item.tokens.append(7)
                item.left -= 1
                if item.left == 0:
                    self.release(item)
                    self.items.remove(item)


def draw_prompt(rng: random.Random, earlier: list[list[int]], max_len: int) -> list[int]:
    """Most go on from somewhere in an earlier conversation."""
    prompt: list[int] = []
    if earlier and rng.random() < 0.7:
        prompt = rng.choice(earlier)
        prompt = prompt[: rng.randint(1, len(prompt))]
    return (prompt + rng.choices([5, 6], k=rng.randint(1, 6)))[:max_len]


@pytest.mark.parametrize("priorities", [(0,), (-1, 0, 7)], ids=["equals", "priorities"])
@pytest.mark.parametrize("caching", get_args(PrefixCaching))
@pytest.mark.parametrize("seed", range(40))
def test_random_schedules_equal_the_simulation(
    seed: int, caching: PrefixCaching, priorities: tuple[int, ...]
) -> None:
    rng = random.Random(seed)
    block_size, max_num_seqs = rng.choice([1, 3, 4]), rng.randint(1, 5)
    num_blocks = rng.randint(4, 20)
    budget = min_batched_tokens(max_num_seqs, block_size) + rng.randint(0, 8)
    scheduler = make_scheduler(num_blocks, block_size, max_num_seqs, budget, caching)
    simulation = Simulation(num_blocks, block_size, max_num_seqs, budget, caching)
    groups: dict[int, SequenceGroup] = {}
    conversations: list[list[int]] = []
    name = 0
    while name < 25 or groups:
        for _ in range(rng.choice([0, 0, 1, 3]) if name < 25 else 0):
            prompt = draw_prompt(rng, conversations, num_blocks * block_size - 1)
            max_tokens = rng.randint(1, num_blocks * block_size - len(prompt))
            conversations.append(prompt + [7] * max_tokens)
            priority = rng.choice(priorities)
            groups[name] = make_group(scheduler, name, prompt, max_tokens, priority)
            scheduler.add(groups[name])
            simulation.add(Item(name, prompt, max_tokens, priority))
            name += 1
        if groups and rng.random() < 0.05:
            aborted = rng.choice(list(groups))
            scheduler.remove(groups.pop(aborted))
            (item,) = (item for item in simulation.items if item.name == aborted)
            simulation.release(item)
            simulation.items.remove(item)
        batch = scheduler.schedule()
        expected = simulation.step()
        assert chunks_of(batch) == expected
        check_laws(batch, groups, scheduler)
        cached = {name: group.num_cached_tokens for name, group in groups.items()}
        assert cached == {item.name: item.num_cached for item in simulation.items}
        advance(batch, groups, scheduler)
        simulation.advance(expected)
        scheduler.block_manager.check_integrity(tables_of(groups))
        assert set(groups) == {item.name for item in simulation.items}
        assert scheduler.num_preemptions == simulation.num_preemptions
        assert scheduler.block_manager.num_free == len(simulation.free())
    assert scheduler.block_manager.num_used == 0
    assert (scheduler.num_prefix_hits > 0) == (caching != "off")


def check_laws(batch: Batch, groups: dict[int, SequenceGroup], scheduler: Scheduler) -> None:
    manager = scheduler.block_manager
    manager.check_integrity(tables_of(groups))
    assert bool(batch.chunks) == bool(groups)  # work never stalls
    assert batch.num_tokens == sum(len(chunk.token_ids) for chunk in batch.chunks)
    assert batch.num_tokens <= scheduler.max_num_batched_tokens
    assert len(batch.chunks) <= scheduler.max_num_seqs
    assert batch.num_sampled == len(batch.sampled_chunks)
    for chunk in batch.chunks:
        (sequence,) = groups[chunk.sequence_id].sequences
        end = chunk.past_len + len(chunk.token_ids)
        assert chunk.samples == (end == sequence.num_tokens)
        assert chunk.samples or end % manager.block_size == 0  # quantisation sees whole blocks
        assert len(chunk.block_indices) == manager.blocks_for(end)
    for queue in (scheduler.running, scheduler.waiting):
        order = [(group.request.priority, group.sequences[0].sequence_id) for group in queue]
        assert order == sorted(order)


def test_decodes_come_first_and_share_the_step_with_a_prefill() -> None:
    scheduler = make_scheduler(num_blocks=20)
    groups = {0: make_group(scheduler, 0, 4, 10), 1: make_group(scheduler, 1, 30, 10)}
    scheduler.add(groups[0])
    advance(scheduler.schedule(), groups, scheduler)
    scheduler.add(groups[1])
    batch = scheduler.schedule()
    assert chunks_of(batch) == [(0, 4, 1), (1, 0, 12)]  # 15 tokens of budget left, three whole blocks
    assert [chunk.sequence_id for chunk in batch.sampled_chunks] == [0]


def test_the_youngest_gives_way_and_is_computed_again_with_its_tokens() -> None:
    scheduler = make_scheduler(num_blocks=6)
    groups = {0: make_group(scheduler, 0, 7, 17), 1: make_group(scheduler, 1, 6, 17)}
    for group in groups.values():
        scheduler.add(group)
    while not scheduler.num_preemptions:
        advance(scheduler.schedule(), groups, scheduler)
    assert list(scheduler.waiting) == [groups[1]]
    (victim,) = groups[1].sequences
    assert victim.num_computed_tokens == 0
    assert victim.num_generated > 0
    generated = victim.token_ids.tolist()
    while 0 in groups:
        advance(scheduler.schedule(), groups, scheduler)
    batch = scheduler.schedule()
    assert chunks_of(batch) == [(1, 0, len(generated))]
    assert batch.chunks[0].token_ids.tolist() == generated


def test_a_newcomer_waits_until_the_running_have_headroom() -> None:
    scheduler = make_scheduler(num_blocks=4)
    groups = {i: make_group(scheduler, i, 8, 8) for i in range(2)}
    for group in groups.values():
        scheduler.add(group)
    assert chunks_of(scheduler.schedule()) == [(0, 0, 8)]  # two blocks are free, but none to spare
    assert [group.sequences[0].sequence_id for group in scheduler.waiting] == [1]


def test_who_waits_starts_by_priority_then_arrival() -> None:
    scheduler = make_scheduler(num_blocks=20, max_num_seqs=1)
    groups = {i: make_group(scheduler, i, 4, 1, priority) for i, priority in enumerate([5, 5, 0, -3, 0])}
    for group in groups.values():
        scheduler.add(group)
    started = []
    while groups:
        batch = scheduler.schedule()
        started += [chunk.sequence_id for chunk in batch.chunks]
        advance(batch, groups, scheduler)
    assert started == [3, 2, 4, 0, 1]


def test_the_least_urgent_gives_way_though_it_is_the_oldest() -> None:
    scheduler = make_scheduler(num_blocks=6)
    groups = {0: make_group(scheduler, 0, 7, 17, priority=1), 1: make_group(scheduler, 1, 6, 17)}
    for group in groups.values():
        scheduler.add(group)
        advance(scheduler.schedule(), groups, scheduler)
    while not scheduler.num_preemptions:
        advance(scheduler.schedule(), groups, scheduler)
    assert scheduler.waiting == [groups[0]]
    assert scheduler.running == [groups[1]]


def test_nobody_is_thrown_out_to_start_somebody_urgent() -> None:
    scheduler = make_scheduler(num_blocks=20, max_num_seqs=1)
    groups = {0: make_group(scheduler, 0, 4, 3)}
    scheduler.add(groups[0])
    advance(scheduler.schedule(), groups, scheduler)
    groups[1] = make_group(scheduler, 1, 4, 3, priority=-9)
    scheduler.add(groups[1])
    assert chunks_of(scheduler.schedule()) == [(0, 4, 1)]


def test_an_urgent_prefill_comes_before_the_rest_of_one_under_way() -> None:
    scheduler = make_scheduler(num_blocks=40)
    groups = {0: make_group(scheduler, 0, 60, 3)}
    scheduler.add(groups[0])
    advance(scheduler.schedule(), groups, scheduler)
    groups[1] = make_group(scheduler, 1, 9, 3, priority=-1)
    scheduler.add(groups[1])
    assert chunks_of(scheduler.schedule()) == [(1, 0, 9), (0, 16, 4)]
