"""One sequence's state in the engine: its tokens, how many are computed, its blocks; decides nothing."""

import numpy as np
from numpy.typing import NDArray

from service.engine.batch import ScheduledChunk
from service.engine.block_digest import block_digest, root_digest
from service.engine.block_manager import BlockTable
from service.engine.sampler import SamplerState
from service.engine.token_events import EngineRequest, FinishReason, ImageSpan


class Sequence:
    """A prompt and what was generated after it. `sequence_id` is never used again."""

    __slots__ = (
        "_block_digests",
        "_token_ids",
        "block_table",
        "eos_token_id",
        "index",
        "most_guessed",
        "num_computed_tokens",
        "num_prompt_tokens",
        "num_tokens",
        "request",
        "sampler_state",
        "sequence_id",
    )

    def __init__(
        self,
        sequence_id: int,
        request: EngineRequest,
        block_table: BlockTable,
        sampler_state: SamplerState,
        eos_token_id: int,
        index: int = 0,
    ) -> None:
        self.sequence_id = sequence_id
        self.request = request
        self.block_table = block_table
        self.sampler_state = sampler_state
        self.eos_token_id = eos_token_id
        self.index = index  # which of its request's choices it is; of a beam it says nothing
        self.num_prompt_tokens = self.num_tokens = len(request.token_ids)
        self.num_computed_tokens = 0  # tokens whose keys and values are in the cache
        self.most_guessed: int | None = None  # tokens worth guessing in a step; None: nothing known yet
        self._block_digests: list[bytes] = []
        self._token_ids: NDArray[np.int64] = np.empty(
            self.num_tokens + request.sampling.max_tokens, dtype=np.int64
        )
        self._token_ids[: self.num_tokens] = request.token_ids

    def fork(
        self, sequence_id: int, block_table: BlockTable, sampler_state: SamplerState, index: int = 0
    ) -> "Sequence":
        """Another sequence with the same tokens, computed as far. Its blocks are the caller's to share."""
        fork = Sequence(sequence_id, self.request, block_table, sampler_state, self.eos_token_id, index)
        generated = slice(self.num_prompt_tokens, self.num_tokens)
        fork._token_ids[generated] = self._token_ids[generated]
        fork.num_tokens = self.num_tokens
        fork.num_computed_tokens = self.num_computed_tokens
        fork._block_digests = self._block_digests.copy()
        return fork

    @property
    def num_generated(self) -> int:
        return self.num_tokens - self.num_prompt_tokens

    @property
    def num_uncomputed(self) -> int:
        """Tokens still to run before the next can be sampled: 1 while decoding, never 0."""
        return self.num_tokens - self.num_computed_tokens

    @property
    def token_ids(self) -> NDArray[np.int64]:
        """[num_tokens] view of prompt and generated tokens."""
        return self._token_ids[: self.num_tokens]

    @property
    def generated_ids(self) -> NDArray[np.int64]:
        """[num_generated] view."""
        return self._token_ids[self.num_prompt_tokens : self.num_tokens]

    def next_chunk(self, num_new_tokens: int, num_blocks: int) -> ScheduledChunk:
        """The next `num_new_tokens` uncomputed tokens; with them, `num_blocks` of its blocks are used."""
        past_len = self.num_computed_tokens
        end = past_len + num_new_tokens
        return ScheduledChunk(
            self.sequence_id,
            self._token_ids[past_len:end],
            past_len,
            self.block_table.block_indices[:num_blocks],
            self._spans_between(past_len, end),
            end == self.num_tokens,
        )

    def guessing_chunk(self, guess: NDArray[np.int64], num_blocks: int) -> ScheduledChunk:
        """The last token, the only one uncomputed, and what is guessed to follow it.

        The guess is written behind the sequence's tokens, where those that come will overwrite it.
        """
        past_len, end = self.num_computed_tokens, self.num_tokens + len(guess)
        assert past_len == self.num_tokens - 1, "the logits before a guess are not computed"
        self._token_ids[self.num_tokens : end] = guess
        blocks = self.block_table.block_indices[:num_blocks]
        spans = self._spans_between(past_len, end)
        return ScheduledChunk(
            self.sequence_id, self._token_ids[past_len:end], past_len, blocks, spans, True, len(guess)
        )

    def _spans_between(self, begin: int, end: int) -> tuple[ImageSpan, ...]:
        if begin >= self.num_prompt_tokens:
            return ()
        spans = self.request.image_spans
        return tuple(span for span in spans if span.start < end and begin < span.start + len(span.embeddings))

    def block_digest(self, index: int, block_size: int) -> bytes:
        """Digest of its `index`-th block, whose tokens must all be known; each is computed once."""
        digests = self._block_digests
        while len(digests) <= index:
            begin = len(digests) * block_size
            end = begin + block_size
            assert end <= self.num_tokens, "a block that is not full has no digest"
            parent = digests[-1] if digests else root_digest(self.request.cache_salt)
            spans = self._spans_between(begin, end)
            digests.append(block_digest(parent, self._token_ids[begin:end], begin, spans))
        return digests[index]

    def append(self, token_id: int) -> FinishReason | None:
        """Take a sampled token; says why the sequence ends with it, if it does."""
        self.extend(token_id)
        self.sampler_state.record(token_id)
        sampling = self.request.sampling
        if token_id == self.eos_token_id and not sampling.ignore_eos:
            return "length" if self._is_cut else "stop"
        if token_id in sampling.stop_token_ids:
            return "stop"
        return "length" if self.num_generated == sampling.max_tokens else None

    @property
    def _is_cut(self) -> bool:
        """Whether the length imposed this end on it."""
        matcher = self.sampler_state.matcher
        return matcher is not None and matcher.is_cut

    def extend(self, token_id: int) -> None:
        """Go on with a token that somebody else chose and judges."""
        self._token_ids[self.num_tokens] = token_id
        self.num_tokens += 1
