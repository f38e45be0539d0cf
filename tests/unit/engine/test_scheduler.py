"""The scheduler against a slow simulation that keeps nothing but counts, and the laws every step obeys."""

import random
from dataclasses import dataclass

import numpy as np
import pytest

from service.engine.batch import Batch
from service.engine.block_manager import BlockManager
from service.engine.sampler import SamplerState
from service.engine.sampling_params import SamplingParams
from service.engine.scheduler import Scheduler, min_batched_tokens
from service.engine.sequence import Sequence
from service.engine.token_events import EngineRequest
from tests.unit.engine.scripted_model import EOS, VOCAB_SIZE


def make_sequence(scheduler: Scheduler, sequence_id: int, num_prompt: int, max_tokens: int) -> Sequence:
    sampling = SamplingParams(max_tokens=max_tokens)
    prompt = np.full(num_prompt, 5, dtype=np.int64)
    return Sequence(
        sequence_id,
        EngineRequest(str(sequence_id), prompt, (), sampling),
        scheduler.block_manager.new_table(num_prompt + max_tokens),
        SamplerState(sampling, EOS, VOCAB_SIZE),
        EOS,
    )


def make_scheduler(
    num_blocks: int, block_size: int = 4, max_num_seqs: int = 4, budget: int = 16
) -> Scheduler:
    return Scheduler(BlockManager(num_blocks, block_size), max_num_seqs, budget)


def advance(batch: Batch, sequences: dict[int, Sequence], scheduler: Scheduler) -> None:
    """What the step loop does after a run, with token 7 sampled everywhere."""
    for chunk in batch.chunks:
        sequence = sequences[chunk.sequence_id]
        sequence.num_computed_tokens += len(chunk.token_ids)
        if chunk.samples and sequence.append(7) is not None:
            scheduler.remove(sequence)
            del sequences[chunk.sequence_id]


def chunks_of(batch: Batch) -> list[tuple[int, int, int]]:
    return [(chunk.sequence_id, chunk.past_len, len(chunk.token_ids)) for chunk in batch.chunks]


@dataclass
class Item:
    """A sequence of the simulation."""

    name: int
    length: int
    left: int  # tokens to generate
    done: int = 0  # computed tokens
    blocks: int = 0


class Simulation:
    """The policy as one would explain it, with blocks as mere numbers."""

    def __init__(self, num_blocks: int, block_size: int, max_num_seqs: int, budget: int) -> None:
        self.num_blocks, self.block_size = num_blocks, block_size
        self.max_num_seqs, self.budget = max_num_seqs, budget
        self.items: list[Item] = []  # by arrival; a running one has blocks
        self.num_preemptions = 0

    def free(self) -> int:
        return self.num_blocks - sum(item.blocks for item in self.items)

    def running(self) -> list[Item]:
        return [item for item in self.items if item.blocks]

    def blocks_for(self, item: Item) -> int:
        return (item.length + self.block_size - 1) // self.block_size

    def step(self) -> list[tuple[int, int, int]]:
        chunks = []
        for item in self.running():
            if item.blocks and item.length - item.done == 1:
                while item.blocks and self.free() < self.blocks_for(item) - item.blocks:
                    youngest = self.running()[-1]
                    youngest.blocks = youngest.done = 0
                    self.num_preemptions += 1
                if item.blocks:
                    item.blocks = self.blocks_for(item)
                    chunks.append((item.name, item.done, 1))
        left = self.budget - len(chunks)
        for item in self.items:
            if not item.blocks:
                full = len(self.running()) == self.max_num_seqs
                cut = item.length > left and left < self.block_size
                if full or cut or self.blocks_for(item) + len(self.running()) > self.free():
                    break  # nobody overtakes
                item.blocks = self.blocks_for(item)
            elif item.length - item.done == 1:
                continue
            todo = item.length - item.done
            if todo > left:
                todo = left // self.block_size * self.block_size
                left = 0
            else:
                left -= todo
            if todo:
                chunks.append((item.name, item.done, todo))
        return chunks

    def advance(self, chunks: list[tuple[int, int, int]]) -> None:
        by_name = {item.name: item for item in self.items}
        for name, _, num_tokens in chunks:
            item = by_name[name]
            item.done += num_tokens
            if item.done == item.length:
                item.length += 1
                item.left -= 1
                if item.left == 0:
                    self.items.remove(item)


@pytest.mark.parametrize("seed", range(40))
def test_random_schedules_equal_the_simulation(seed: int) -> None:
    rng = random.Random(seed)
    block_size, max_num_seqs = rng.choice([1, 3, 4]), rng.randint(1, 5)
    num_blocks = rng.randint(4, 20)
    budget = min_batched_tokens(max_num_seqs, block_size) + rng.randint(0, 8)
    scheduler = make_scheduler(num_blocks, block_size, max_num_seqs, budget)
    simulation = Simulation(num_blocks, block_size, max_num_seqs, budget)
    sequences: dict[int, Sequence] = {}
    name = 0
    while name < 25 or sequences:
        for _ in range(rng.choice([0, 0, 1, 3]) if name < 25 else 0):
            num_prompt = rng.randint(1, num_blocks * block_size - 1)
            max_tokens = rng.randint(1, num_blocks * block_size - num_prompt)
            sequences[name] = make_sequence(scheduler, name, num_prompt, max_tokens)
            scheduler.add(sequences[name])
            simulation.items.append(Item(name, num_prompt, max_tokens))
            name += 1
        if sequences and rng.random() < 0.05:
            aborted = rng.choice(list(sequences))
            scheduler.remove(sequences.pop(aborted))
            simulation.items = [item for item in simulation.items if item.name != aborted]
        batch = scheduler.schedule()
        expected = simulation.step()
        assert chunks_of(batch) == expected
        check_laws(batch, sequences, scheduler)
        advance(batch, sequences, scheduler)
        simulation.advance(expected)
        scheduler.block_manager.check_integrity(s.block_table for s in sequences.values())
        assert list(sequences) == [item.name for item in simulation.items]
        assert scheduler.num_preemptions == simulation.num_preemptions
    assert scheduler.block_manager.num_used == 0


def check_laws(batch: Batch, sequences: dict[int, Sequence], scheduler: Scheduler) -> None:
    manager = scheduler.block_manager
    manager.check_integrity(s.block_table for s in sequences.values())
    assert bool(batch.chunks) == bool(sequences)  # work never stalls
    assert batch.num_tokens == sum(len(chunk.token_ids) for chunk in batch.chunks)
    assert batch.num_tokens <= scheduler.max_num_batched_tokens
    assert len(batch.chunks) <= scheduler.max_num_seqs
    assert batch.num_sampled == len(batch.sampled_sequence_ids)
    for chunk in batch.chunks:
        sequence = sequences[chunk.sequence_id]
        end = chunk.past_len + len(chunk.token_ids)
        assert chunk.samples == (end == sequence.num_tokens)
        assert chunk.samples or end % manager.block_size == 0  # quantisation sees whole blocks
        assert len(chunk.block_indices) == manager.blocks_for(end)
    order = [s.sequence_id for s in [*scheduler.running, *scheduler.waiting]]
    assert order == sorted(order)


def test_decodes_come_first_and_share_the_step_with_a_prefill() -> None:
    scheduler = make_scheduler(num_blocks=20)
    sequences = {0: make_sequence(scheduler, 0, 4, 10), 1: make_sequence(scheduler, 1, 30, 10)}
    scheduler.add(sequences[0])
    advance(scheduler.schedule(), sequences, scheduler)
    scheduler.add(sequences[1])
    batch = scheduler.schedule()
    assert chunks_of(batch) == [(0, 4, 1), (1, 0, 12)]  # 15 tokens of budget left, three whole blocks
    assert batch.sampled_sequence_ids == [0]


def test_the_youngest_gives_way_and_is_computed_again_with_its_tokens() -> None:
    scheduler = make_scheduler(num_blocks=6)
    sequences = {0: make_sequence(scheduler, 0, 7, 17), 1: make_sequence(scheduler, 1, 6, 17)}
    for sequence in sequences.values():
        scheduler.add(sequence)
    while not scheduler.num_preemptions:
        advance(scheduler.schedule(), sequences, scheduler)
    victim = sequences[1]
    assert list(scheduler.waiting) == [victim]
    assert victim.num_computed_tokens == 0
    assert victim.num_generated > 0
    generated = victim.token_ids.tolist()
    while 0 in sequences:
        advance(scheduler.schedule(), sequences, scheduler)
    batch = scheduler.schedule()
    assert chunks_of(batch) == [(1, 0, len(generated))]
    assert batch.chunks[0].token_ids.tolist() == generated


def test_a_newcomer_waits_until_the_running_have_headroom() -> None:
    scheduler = make_scheduler(num_blocks=4)
    sequences = {i: make_sequence(scheduler, i, 8, 8) for i in range(2)}
    for sequence in sequences.values():
        scheduler.add(sequence)
    assert chunks_of(scheduler.schedule()) == [(0, 0, 8)]  # two blocks are free, but none to spare
    assert [s.sequence_id for s in scheduler.waiting] == [1]
