"""Decides which tokens of which sequences run next; knows no tensor, no device and no token's meaning.

Decode first, then the prefills under way, then new ones, first come first served. When blocks run out the
youngest sequence gives up its own and is computed again later (preemption by recompute): its tokens and its
sampler's state stay, so its answer does too. What is computed of a sequence that starts (again) is taken over
from the prefix cache, in whole blocks.
"""

from collections import deque
from typing import Literal

from service.engine.batch import Batch, ScheduledChunk
from service.engine.block_manager import BlockManager
from service.engine.sequence import Sequence

PrefixCaching = Literal["off", "prefilled", "all"]
"""Which blocks later sequences may share: none, those written as a whole by one chunk, every full one."""


def min_batched_tokens(max_num_seqs: int, block_size: int) -> int:
    """The smallest step that holds a block of prefill beside a decode of every other sequence."""
    return max_num_seqs - 1 + block_size


class Scheduler:
    """Both queues are in order of arrival, and everything running arrived before everything waiting."""

    def __init__(
        self,
        block_manager: BlockManager,
        max_num_seqs: int,
        max_num_batched_tokens: int,
        prefix_caching: PrefixCaching = "off",
    ) -> None:
        assert max_num_batched_tokens >= min_batched_tokens(max_num_seqs, block_manager.block_size)
        self.block_manager = block_manager
        self.max_num_seqs = max_num_seqs
        self.max_num_batched_tokens = max_num_batched_tokens
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.num_preemptions = 0
        self.num_prefix_queries = 0  # tokens of all sequences when they were first admitted
        self.num_prefix_hits = 0  # of them, found in the cache
        self._prefix_caching = prefix_caching

    @property
    def has_work(self) -> bool:
        return bool(self.running or self.waiting)

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence whose whole length fits into the cache (the caller has checked)."""
        self.waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence that ended or was aborted, and free its blocks; their content stays known."""
        self.block_manager.release(sequence.block_table)
        if sequence in self.running:
            self.running.remove(sequence)
        else:
            self.waiting.remove(sequence)

    def advance(self, sequence: Sequence, num_new_tokens: int) -> None:
        """Count tokens that a step has computed; the blocks they filled can be shared from now on."""
        begin = sequence.num_computed_tokens
        sequence.num_computed_tokens += num_new_tokens
        if self._prefix_caching == "off":
            return
        blocks = self.block_manager
        block_size = blocks.block_size
        first = begin // block_size if self._prefix_caching == "all" else blocks.blocks_for(begin)
        for index in range(first, sequence.num_computed_tokens // block_size):
            block = int(sequence.block_table.block_indices[index])
            blocks.register(block, sequence.block_digest(index, block_size))

    def schedule(self) -> Batch:
        """The next step; every chunk's blocks are allocated. Empty only if nothing runs or waits."""
        chunks = self._decodes()
        budget = self.max_num_batched_tokens - len(chunks)
        budget = self._continue_prefills(chunks, budget)
        self._start_prefills(chunks, budget)
        num_tokens = sum(len(chunk.token_ids) for chunk in chunks)
        return Batch(tuple(chunks), num_tokens, sum(chunk.samples for chunk in chunks))

    def _decodes(self) -> list[ScheduledChunk]:
        chunks: list[ScheduledChunk] = []
        index = 0
        while index < len(self.running):  # the list loses its tail to preemption
            sequence = self.running[index]
            index += 1
            if sequence.num_uncomputed == 1 and self._grow_or_preempt(sequence):
                chunks.append(self._chunk(sequence, 1))
        return chunks

    def _grow_or_preempt(self, sequence: Sequence) -> bool:
        """Get the blocks `sequence` needs, if need be from the youngest; False if that is itself.

        Sequences are served oldest first, so a victim has no chunk in this step yet.
        """
        while not self.block_manager.grow(sequence.block_table, sequence.num_tokens):
            if self.preempt_youngest() is sequence:
                return False
        return True

    def preempt_youngest(self) -> Sequence:
        """Take the blocks of the sequence that started last and put it in front of the waiting ones."""
        sequence = self.running.pop()
        self.block_manager.release(sequence.block_table)
        sequence.num_computed_tokens = 0
        self.waiting.appendleft(sequence)
        self.num_preemptions += 1
        return sequence

    def _continue_prefills(self, chunks: list[ScheduledChunk], budget: int) -> int:
        for sequence in self.running:
            if sequence.num_uncomputed > 1:
                budget = self._add_prefill(sequence, chunks, budget)
        return budget

    def _start_prefills(self, chunks: list[ScheduledChunk], budget: int) -> None:
        while self.waiting and budget and len(self.running) < self.max_num_seqs:
            sequence = self.waiting[0]
            cached = self._cached_prefix(sequence)
            num_uncomputed = sequence.num_tokens - len(cached) * self.block_manager.block_size
            if not self._prefill_len(num_uncomputed, budget) or not self._admits(sequence, cached):
                break
            self.running.append(self.waiting.popleft())
            self._take_over(sequence, cached)
            self.block_manager.grow(sequence.block_table, sequence.num_tokens)
            budget = self._add_prefill(sequence, chunks, budget)

    def _cached_prefix(self, sequence: Sequence) -> list[int]:
        """Blocks that hold its longest known prefix, which leaves at least one token to run."""
        if self._prefix_caching == "off":
            return []
        block_size = self.block_manager.block_size
        num_blocks = (sequence.num_tokens - 1) // block_size
        return self.block_manager.find(sequence.block_digest(i, block_size) for i in range(num_blocks))

    def _admits(self, sequence: Sequence, cached: list[int]) -> bool:
        """All blocks of what it has to compute, and one more for every sequence that already runs: without
        that headroom a newcomer would be preempted, and its prefill lost, a few tokens later."""
        needed = self.block_manager.blocks_for(sequence.num_tokens) - len(cached)
        return needed + len(self.running) <= self.block_manager.num_free_beside(cached)

    def _take_over(self, sequence: Sequence, cached: list[int]) -> None:
        self.block_manager.share(sequence.block_table, cached)
        sequence.num_computed_tokens = len(cached) * self.block_manager.block_size
        if sequence.num_cached_tokens is None:  # not again after a preemption
            sequence.num_cached_tokens = sequence.num_computed_tokens
            if self._prefix_caching != "off":
                self.num_prefix_queries += sequence.num_tokens
                self.num_prefix_hits += sequence.num_computed_tokens

    def _add_prefill(self, sequence: Sequence, chunks: list[ScheduledChunk], budget: int) -> int:
        """Append what the budget allows of a prefill; what is left then, 0 if the prefill is not finished."""
        num_new_tokens = self._prefill_len(sequence.num_uncomputed, budget)
        if num_new_tokens:
            chunks.append(self._chunk(sequence, num_new_tokens))
        return budget - num_new_tokens if num_new_tokens == sequence.num_uncomputed else 0

    def _prefill_len(self, num_uncomputed: int, budget: int) -> int:
        """All that is left, or as many whole blocks as the budget holds.

        Keys are quantised per block: when every cut of a prefill is at a block's end, a u8 cache holds the
        same bits however the prompt was cut, and the answer does not depend on what else was in the batch.
        """
        if num_uncomputed <= budget:
            return num_uncomputed
        return budget - budget % self.block_manager.block_size

    def _chunk(self, sequence: Sequence, num_new_tokens: int) -> ScheduledChunk:
        num_tokens = sequence.num_computed_tokens + num_new_tokens
        return sequence.next_chunk(num_new_tokens, self.block_manager.blocks_for(num_tokens))
