"""Decides how many tokens are guessed for which sequence of a step; knows no logits and how no guess ends."""

import numpy as np
from numpy.typing import NDArray

from service.engine.batch import ScheduledChunk
from service.engine.block_manager import BlockManager
from service.engine.prompt_lookup import look_up
from service.engine.sequence import Sequence


class Guesser:
    """Prompt lookup for greedy answers: a token drawn at random is seldom the one that was guessed.

    Choices and beams are left alone: they write to blocks that others hold, and need no more rows.
    """

    def __init__(self, block_manager: BlockManager, num_speculative_tokens: int) -> None:
        self._blocks = block_manager
        self._num_speculative_tokens = num_speculative_tokens  # 0: nothing is guessed
        self.num_guessed = 0  # tokens a step has checked
        self.num_accepted = 0  # of them, those that were drawn

    def chunks(self, decoding: list[Sequence], budget: int) -> list[ScheduledChunk]:
        """The last token of each, and what is guessed to follow it: `budget` tokens, together, at most."""
        blocks_for = self._blocks.blocks_for
        if not self._num_speculative_tokens:
            return [sequence.next_chunk(1, blocks_for(sequence.num_tokens)) for sequence in decoding]
        chunks = []
        for sequence in decoding:
            guess = self._guess(sequence, budget)
            budget -= len(guess)
            chunks.append(sequence.guessing_chunk(guess, blocks_for(sequence.num_tokens + len(guess))))
        return chunks

    def _guess(self, sequence: Sequence, budget: int) -> NDArray[np.int64]:
        """Its blocks are taken from those nobody needs in this step; else it is cut to what there is."""
        sampling = sequence.request.sampling
        # Of a prompt that is cut so that one token is left, nothing was drawn yet: it has no answer to go on.
        if sampling.temperature > 0 or sampling.num_seqs > 1 or not sequence.num_generated:
            return sequence.token_ids[:0]
        most = self._num_speculative_tokens if sequence.most_guessed is None else sequence.most_guessed
        most = min(most, budget, sampling.max_tokens - sequence.num_generated - 1)  # one more is drawn
        guess = look_up(sequence.token_ids, most) if most > 0 else sequence.token_ids[:0]
        table = sequence.block_table
        if not self._blocks.grow(table, sequence.num_tokens + len(guess)):
            guess = guess[: len(table) * self._blocks.block_size - sequence.num_tokens]
        return guess

    def note(self, sequence: Sequence, num_guessed: int, num_accepted: int) -> None:
        """Count what came of a guess. One that failed makes the sequence's next ones short, until one comes
        true: on a CPU, a row costs almost as much as a sequence."""
        self.num_guessed += num_guessed
        self.num_accepted += num_accepted
        sequence.most_guessed = min(self._num_speculative_tokens, 2 * num_accepted + 1)
