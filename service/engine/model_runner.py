"""Runs one batch through the compiled models; knows no queue, no sampling and nothing from step to step.

Its input tensors live as long as it does: a step only sets their shapes (within what was allocated) and
writes into them.
"""

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from service.engine.batch import Batch, ScheduledChunk
from service.engine.kv_cache import KVCache


class ModelRunner:
    """Text embedding and language model over one KV cache. Not thread-safe: one engine thread uses it."""

    def __init__(
        self,
        language_model: ov.CompiledModel,
        text_embeddings: ov.CompiledModel,
        kv_cache: KVCache,
        max_num_seqs: int,
        max_num_batched_tokens: int,
    ) -> None:
        self._kv_cache = kv_cache
        self._text_request = text_embeddings.create_infer_request()
        self._request = language_model.create_infer_request()
        hidden_size = text_embeddings.output(0).partial_shape[2].get_length()
        self._vocab_size = language_model.output(0).partial_shape[-1].get_length()
        tokens, seqs = max_num_batched_tokens, max_num_seqs
        self._input_ids = ov.Tensor(ov.Type.i64, ov.Shape([1, tokens]))
        self._inputs_embeds = ov.Tensor(ov.Type.f32, ov.Shape([tokens, hidden_size]))
        self._position_ids = ov.Tensor(ov.Type.i64, ov.Shape([tokens]))
        self._past_lens = ov.Tensor(ov.Type.i32, ov.Shape([seqs]))
        self._subsequence_begins = ov.Tensor(ov.Type.i32, ov.Shape([seqs + 1]))
        # Sequences share blocks, so together they can name more than there are.
        self._block_indices = ov.Tensor(ov.Type.i32, ov.Shape([seqs * kv_cache.num_blocks]))
        self._block_indices_begins = ov.Tensor(ov.Type.i32, ov.Shape([seqs + 1]))
        self._max_context_len = ov.Tensor(ov.Type.i32, ov.Shape([]))
        self._sampled_tokens_indices = ov.Tensor(ov.Type.i64, ov.Shape([seqs]))
        self._set_tensors()

    def _set_tensors(self) -> None:
        self._text_request.set_tensor("input_ids", self._input_ids)
        inputs = {
            "inputs_embeds": self._inputs_embeds,
            "position_ids": self._position_ids,
            "past_lens": self._past_lens,
            "subsequence_begins": self._subsequence_begins,
            "block_indices": self._block_indices,
            "block_indices_begins": self._block_indices_begins,
            "max_context_len": self._max_context_len,
            "sampled_tokens_indices": self._sampled_tokens_indices,
        }
        for name, tensor in (inputs | self._kv_cache.tensors).items():
            self._request.set_tensor(name, tensor)

    def run(self, batch: Batch, beside: Callable[[], None] | None = None) -> NDArray[np.float32]:
        """Write the batch's keys and values and compute logits [num_sampled, vocab_size].

        `beside` is called while the language model runs.

        The result is a view of the runner's own memory, valid (and free to overwrite) until the next run.
        """
        if batch.block_copies:
            self._kv_cache.copy_blocks(batch.block_copies)
        self._fill_indices(batch)
        self._fill_embeddings(batch)
        infer_beside(self._request, beside)
        if not batch.num_sampled:
            return np.empty((0, self._vocab_size), dtype=np.float32)
        logits = cast(NDArray[np.float32], self._request.get_output_tensor(0).data)
        return logits.reshape(batch.num_sampled, self._vocab_size)

    def _fill_indices(self, batch: Batch) -> None:
        chunks = batch.chunks
        num_seqs = len(chunks)
        past_lens = _resized(self._past_lens, num_seqs)
        begins = _resized(self._subsequence_begins, num_seqs + 1)
        block_begins = _resized(self._block_indices_begins, num_seqs + 1)
        position_ids = _resized(self._position_ids, batch.num_tokens)
        blocks = _resized(self._block_indices, sum(len(chunk.block_indices) for chunk in chunks))
        # A step in which nothing is sampled computes one row of logits that nobody reads.
        sampled = _resized(self._sampled_tokens_indices, max(batch.num_sampled, 1))
        sampled[0] = 0
        token = block = row = max_context_len = 0
        begins[0] = block_begins[0] = 0
        for index, chunk in enumerate(chunks):
            num_tokens = len(chunk.token_ids)
            context_len = chunk.past_len + num_tokens
            max_context_len = max(max_context_len, context_len)
            past_lens[index] = chunk.past_len
            position_ids[token : token + num_tokens] = np.arange(chunk.past_len, context_len)
            blocks[block : block + len(chunk.block_indices)] = chunk.block_indices
            token += num_tokens
            block += len(chunk.block_indices)
            begins[index + 1] = token
            block_begins[index + 1] = block
            if chunk.samples:
                sampled[row] = token - 1
                row += 1
        self._max_context_len.data[...] = max_context_len

    def _fill_embeddings(self, batch: Batch) -> None:
        """Rows of the embedding table for every id in one call, then the image rows over their slots."""
        input_ids = _resized(self._input_ids, 1, batch.num_tokens)[0]
        inputs_embeds = _resized(self._inputs_embeds, batch.num_tokens)
        begin = 0
        for chunk in batch.chunks:
            input_ids[begin : begin + len(chunk.token_ids)] = chunk.token_ids
            begin += len(chunk.token_ids)
        self._text_request.infer()
        inputs_embeds[:] = self._text_request.get_output_tensor(0).data[0]
        begin = 0
        for chunk in batch.chunks:
            place_images(chunk, inputs_embeds[begin : begin + len(chunk.token_ids)])
            begin += len(chunk.token_ids)


def infer_beside(request: ov.InferRequest, beside: Callable[[], None] | None) -> None:
    """Run a request whose tensors are set, and `beside` at the same time."""
    if beside is None:
        request.infer()
        return
    request.start_async()
    try:
        beside()
    finally:
        request.wait()


def place_images(chunk: ScheduledChunk, rows: NDArray[np.float32]) -> None:
    """Copy what lies inside the chunk of every span into its rows [num_new_tokens, hidden_size]."""
    for span in chunk.image_spans:
        start = span.start - chunk.past_len  # the first slot's row; negative if an earlier chunk had it
        begin, end = max(start, 0), min(start + len(span.embeddings), len(rows))
        rows[begin:end] = span.embeddings[begin - start : end - start]


def _resized(tensor: ov.Tensor, *leading: int) -> NDArray[Any]:
    """Set the tensor's leading dimensions and give its data; within what was allocated nothing moves."""
    shape = list(tensor.shape)
    shape[: len(leading)] = leading
    tensor.shape = shape
    return cast(NDArray[Any], tensor.data)
