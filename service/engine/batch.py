"""One step's work as a plain value: all the runner is told; holds no sequence state and decides nothing."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.engine.token_events import ImageSpan


@dataclass(frozen=True, slots=True, eq=False)
class ScheduledChunk:
    """The next tokens of one sequence: [past_len, past_len + len(token_ids)) of its positions.

    The arrays are views into the sequence's own buffers, valid until the sequence is advanced.
    """

    sequence_id: int
    token_ids: NDArray[np.int64]  # [num_new_tokens], the pad id in image slots
    past_len: int  # tokens whose keys and values are already in the cache
    block_indices: NDArray[np.int32]  # [ceil((past_len + num_new_tokens) / block_size)]
    image_spans: tuple[ImageSpan, ...]  # those that overlap the chunk, in order
    samples: bool  # whether the last token's logits are wanted
    num_guessed: int = 0  # so many last tokens are guesses; then the logits before each are wanted too

    @property
    def num_rows(self) -> int:
        """Rows of logits that are wanted, of its last tokens."""
        return self.samples + self.num_guessed


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Chunks that run together in one inference; decodes come first."""

    chunks: tuple[ScheduledChunk, ...]
    num_tokens: int  # over all chunks
    num_sampled: int  # rows of logits, over all chunks
    block_copies: tuple[tuple[int, int], ...] = ()  # (source, destination), to be made before the chunks run

    @property
    def sampled_chunks(self) -> list[ScheduledChunk]:
        """Those that have rows in the runner's logits, in row order."""
        return [chunk for chunk in self.chunks if chunk.samples]
