"""Decides which tokens of which sequences run next; knows no tensor, no device and no token's meaning.

Decode first, then prefills, under way or new, by priority and among equals first come first served. Requests
run, wait and give way as groups of sequences. When blocks run out the last group by that order gives up its
own and is computed again later (preemption by recompute): its tokens and its samplers' states stay, so its
answers do too. What is computed of a group that starts (again) is taken over from the prefix cache, in whole
blocks.
"""

import itertools
from bisect import insort
from operator import attrgetter
from typing import Literal

from service.engine.batch import Batch, ScheduledChunk
from service.engine.block_manager import BlockManager
from service.engine.guesser import Guesser
from service.engine.sequence import Sequence
from service.engine.sequence_group import SequenceGroup

PrefixCaching = Literal["off", "prefilled", "all"]
"""Which blocks later sequences may share: none, those written as a whole by one chunk, every full one."""

_by_rank = attrgetter("rank")


def min_batched_tokens(max_num_seqs: int, block_size: int) -> int:
    """The smallest step that holds a block of prefill beside a decode of every other sequence."""
    return max_num_seqs - 1 + block_size


class Scheduler:
    """Both queues are in order of rank: priority, then arrival.

    Who waits may rank before who runs: a start waits for a place, only blocks to decode with are taken away.
    """

    def __init__(
        self,
        block_manager: BlockManager,
        max_num_seqs: int,
        max_num_batched_tokens: int,
        prefix_caching: PrefixCaching = "off",
        num_speculative_tokens: int = 0,
    ) -> None:
        assert max_num_batched_tokens >= min_batched_tokens(max_num_seqs, block_manager.block_size)
        self.block_manager = block_manager
        self.max_num_seqs = max_num_seqs
        self.max_num_batched_tokens = max_num_batched_tokens
        self.waiting: list[SequenceGroup] = []
        self.running: list[SequenceGroup] = []
        self.num_preemptions = 0
        self.num_prefix_queries = 0  # tokens of all sequences when they were first admitted
        self.num_prefix_hits = 0  # of them, found in the cache
        self.guesser = Guesser(block_manager, num_speculative_tokens)
        self._prefix_caching = prefix_caching
        self._arrivals = itertools.count()

    @property
    def has_work(self) -> bool:
        return bool(self.running or self.waiting)

    def add(self, group: SequenceGroup) -> None:
        """Queue a request that fits into the cache at its longest (the caller has checked)."""
        group.rank = (group.request.priority, next(self._arrivals))
        insort(self.waiting, group, key=_by_rank)

    def remove(self, group: SequenceGroup) -> None:
        """Forget a request that ended or was aborted, and free its blocks; their content stays known."""
        for sequence in group.sequences:
            self.block_manager.release(sequence.block_table)
        if group in self.running:
            self.running.remove(group)
        else:
            self.waiting.remove(group)

    def remove_sequence(self, group: SequenceGroup, sequence: Sequence) -> None:
        """Forget one sequence, and with the last one the request."""
        if len(group.sequences) == 1:
            self.remove(group)
        else:
            self.block_manager.release(sequence.block_table)
        group.remove(sequence)

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
        copies: list[tuple[int, int]] = []
        decoding, prefilling = self._decodes(copies)
        budget = self.max_num_batched_tokens - len(decoding)
        prefills: list[ScheduledChunk] = []
        for group in prefilling:
            budget = self._start_groups(prefills, budget, before=group)
            budget = self._add_prefills(group.prefilling(), prefills, budget)
        budget = self._start_groups(prefills, budget)
        # Last, with what is left of budget and blocks: guesses take nobody's place.
        chunks = [*self.guesser.chunks(decoding, budget), *prefills]
        num_tokens = sum(len(chunk.token_ids) for chunk in chunks)
        num_sampled = sum(chunk.num_rows for chunk in chunks)
        return Batch(tuple(chunks), num_tokens, num_sampled, tuple(copies))

    def _decodes(self, copies: list[tuple[int, int]]) -> tuple[list[Sequence], list[SequenceGroup]]:
        """All that decode, with blocks to do it; the groups in which some sequence does not."""
        all_decoding: list[Sequence] = []
        prefilling: list[SequenceGroup] = []
        index = 0
        while index < len(self.running):  # the list loses its tail to preemption
            group = self.running[index]
            index += 1
            group.share_prefix()
            decoding = group.decoding()
            if decoding and not self._grow_or_preempt(group, decoding, copies):
                break  # it was the last
            all_decoding += decoding
            if len(decoding) < len(group.sequences):
                prefilling.append(group)
        return all_decoding, prefilling

    def _grow_or_preempt(
        self, group: SequenceGroup, decoding: list[Sequence], copies: list[tuple[int, int]]
    ) -> bool:
        """Get the blocks a group needs to decode, if need be from the last one; False if that is itself.

        Groups are served in order of rank, so a victim has no chunk in this step yet.
        """
        num_copies = len(copies)
        while not self._grow(group, decoding, copies):
            if self.preempt_last() is group:
                del copies[num_copies:]
                return False
        return True

    def _grow(self, group: SequenceGroup, decoding: list[Sequence], copies: list[tuple[int, int]]) -> bool:
        """A place for every next token, in a block nobody else sees written to; False if too few are free."""
        # What the prefix cache shares is full: only forks write to a block that others hold.
        if len(group.sequences) > 1 and not all(self._unshare(sequence, copies) for sequence in decoding):
            return False
        blocks = self.block_manager
        return all(blocks.grow(sequence.block_table, sequence.num_tokens) for sequence in decoding)

    def _unshare(self, sequence: Sequence, copies: list[tuple[int, int]]) -> bool:
        index = sequence.num_computed_tokens // self.block_manager.block_size
        if not self.block_manager.is_shared(sequence.block_table, index):
            return True
        copy = self.block_manager.copy_on_write(sequence.block_table, index)
        if copy is not None:
            copies.append(copy)
        return copy is not None

    def preempt_last(self) -> SequenceGroup:
        """Take the blocks of the running group that ranks last; it waits in its place."""
        group = self.running.pop()
        for sequence in group.sequences:
            self.block_manager.release(sequence.block_table)
        group.start_over()
        insort(self.waiting, group, key=_by_rank)
        self.num_preemptions += 1
        return group

    def _start_groups(
        self, chunks: list[ScheduledChunk], budget: int, before: SequenceGroup | None = None
    ) -> int:
        """Start who can, in order, nobody overtaking; what is left of the budget.

        With `before`, only those that rank before that running group, whose prefill comes next.
        """
        num_seqs = sum(group.num_seqs for group in self.running) if self.waiting else 0
        while self.waiting and budget:
            group = self.waiting[0]
            if before is not None and group.rank > before.rank:
                break
            cached = self._cached_prefix(group)
            num_uncomputed = group.sequences[0].num_tokens - len(cached) * self.block_manager.block_size
            full = num_seqs + group.num_seqs > self.max_num_seqs
            if full or not self._prefill_len(num_uncomputed, budget):
                break
            needed = self._num_blocks_to_start(group, len(cached)) + num_seqs
            if needed > self.block_manager.num_free_beside(cached):
                break
            insort(self.running, self.waiting.pop(0), key=_by_rank)
            num_seqs += group.num_seqs
            self._start(group, cached)
            budget = self._add_prefills(group.prefilling(starting=True), chunks, budget)
        return budget

    def _cached_prefix(self, group: SequenceGroup) -> list[int]:
        """Blocks that hold its first sequence's longest known prefix, which leaves a token to prefill."""
        if self._prefix_caching == "off":
            return []
        first, block_size = group.sequences[0], self.block_manager.block_size
        num_blocks = (first.num_tokens - 1 - group.in_lockstep) // block_size
        return self.block_manager.find(first.block_digest(i, block_size) for i in range(num_blocks))

    def _num_blocks_to_start(self, group: SequenceGroup, num_cached: int) -> int:
        """Blocks for all it has to compute, or to fork at its first token.

        It is admitted if one more is free for every sequence that already runs: without that headroom a
        newcomer would be preempted, and its prefill lost, a few tokens later.
        """
        blocks_for = self.block_manager.blocks_for
        first, *others = group.sequences
        num_blocks = blocks_for(first.num_tokens) - num_cached
        if not group.is_forked:
            return num_blocks + group.num_seqs - 1
        num_shared = self._num_shared_blocks(group)
        return num_blocks + sum(blocks_for(other.num_tokens) - num_shared for other in others)

    def _num_shared_blocks(self, group: SequenceGroup) -> int:
        """Those that hold nothing but prompt, which all its sequences have in common."""
        return group.sequences[0].num_prompt_tokens // self.block_manager.block_size

    def _start(self, group: SequenceGroup, cached: list[int]) -> None:
        blocks = self.block_manager
        first, *others = group.sequences
        self._take_over(group, cached)
        blocks.grow(first.block_table, first.num_tokens)
        num_shared = self._num_shared_blocks(group)
        for other in others:
            blocks.fork(other.block_table, first.block_table, num_shared)
            blocks.grow(other.block_table, other.num_tokens)
        group.wait_for_prefix(num_shared * blocks.block_size)
        group.share_prefix()

    def _take_over(self, group: SequenceGroup, cached: list[int]) -> None:
        first = group.sequences[0]
        self.block_manager.share(first.block_table, cached)
        first.num_computed_tokens = len(cached) * self.block_manager.block_size
        if group.num_cached_tokens is None:  # not again after a preemption
            group.num_cached_tokens = first.num_computed_tokens
            if self._prefix_caching != "off":
                self.num_prefix_queries += first.num_tokens
                self.num_prefix_hits += first.num_computed_tokens

    def _add_prefills(
        self, prefilling: list[tuple[Sequence, int]], chunks: list[ScheduledChunk], budget: int
    ) -> int:
        """Append what the budget allows; what is left then, 0 from a prefill on that is not finished."""
        for sequence, num_tokens in prefilling:
            num_new_tokens = self._prefill_len(num_tokens, budget)
            if num_new_tokens:
                chunks.append(self._chunk(sequence, num_new_tokens))
            budget = budget - num_new_tokens if num_new_tokens == num_tokens else 0
        return budget

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
