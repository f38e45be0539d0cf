"""Runs one batch through the compiled models; knows no queue, no sampling and nothing from step to step.

Its input tensors live as long as it does: a step only sets their shapes (within what was allocated) and
writes into them.
"""

from collections.abc import Callable
from typing import cast

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from service.engine.batch import Batch, ScheduledChunk
from service.engine.input_tensor import InputTensor
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
        self._input_ids = InputTensor(ov.Type.i64, tokens, outer=(1,))
        self._inputs_embeds = InputTensor(ov.Type.f32, tokens, hidden_size)
        self._position_ids = InputTensor(ov.Type.i64, tokens)
        self._past_lens = InputTensor(ov.Type.i32, seqs)
        self._subsequence_begins = InputTensor(ov.Type.i32, seqs + 1)
        # Sequences share blocks, so together they can name more than there are.
        self._block_indices = InputTensor(ov.Type.i32, seqs * kv_cache.num_blocks)
        self._block_indices_begins = InputTensor(ov.Type.i32, seqs + 1)
        self._max_context_len = ov.Tensor(ov.Type.i32, ov.Shape([]))
        self._sampled_tokens_indices = InputTensor(ov.Type.i64, tokens)
        self._set_tensors()

    def _set_tensors(self) -> None:
        self._text_request.set_tensor("input_ids", self._input_ids.tensor)
        inputs = {
            "inputs_embeds": self._inputs_embeds.tensor,
            "position_ids": self._position_ids.tensor,
            "past_lens": self._past_lens.tensor,
            "subsequence_begins": self._subsequence_begins.tensor,
            "block_indices": self._block_indices.tensor,
            "block_indices_begins": self._block_indices_begins.tensor,
            "max_context_len": self._max_context_len,
            "sampled_tokens_indices": self._sampled_tokens_indices.tensor,
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
        num_tokens = [len(chunk.token_ids) for chunk in chunks]
        past_lens = self._past_lens.first(len(chunks))
        past_lens[:] = [chunk.past_len for chunk in chunks]
        begins = self._subsequence_begins.first(len(chunks) + 1)
        _sum_up(num_tokens, begins)
        position_ids = self._position_ids.first(batch.num_tokens)
        position_ids[:] = np.repeat(past_lens - begins[:-1], num_tokens)
        position_ids += np.arange(batch.num_tokens)
        tables = [chunk.block_indices for chunk in chunks]
        num_blocks = [len(table) for table in tables]
        _sum_up(num_blocks, self._block_indices_begins.first(len(chunks) + 1))
        np.concatenate(tables, out=self._block_indices.first(sum(num_blocks)))
        # A step in which nothing is sampled computes one row of logits that nobody reads.
        sampled = self._sampled_tokens_indices.first(max(batch.num_sampled, 1))
        sampled[:] = 0
        if batch.num_sampled:
            _name_last_tokens(begins[1:], [chunk.num_rows for chunk in chunks], sampled)
        self._max_context_len.data[...] = (past_lens + num_tokens).max()

    def _fill_embeddings(self, batch: Batch) -> None:
        """Rows of the embedding table for every id in one call, then the image rows over their slots."""
        input_ids = self._input_ids.first(batch.num_tokens)
        np.concatenate([chunk.token_ids for chunk in batch.chunks], out=input_ids)
        inputs_embeds = self._inputs_embeds.first(batch.num_tokens)
        self._text_request.infer()
        inputs_embeds[:] = self._text_request.get_output_tensor(0).data[0]
        begin = 0
        for chunk in batch.chunks:
            if chunk.image_spans:
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


def _name_last_tokens(ends: NDArray[np.int32], num_rows: list[int], sampled: NDArray[np.int64]) -> None:
    """`sampled` [sum of num_rows] names the last num_rows[i] tokens before ends[i], for each i in order."""
    num_before = ends - np.cumsum(num_rows)  # tokens of which no row is wanted, before each chunk's rows
    sampled[:] = np.arange(len(sampled)) + np.repeat(num_before, num_rows)


def _sum_up(lengths: list[int], begins: NDArray[np.int32]) -> None:
    """begins[i] [n + 1] becomes the sum of the `lengths` [n] before the i-th."""
    begins[0] = 0
    np.cumsum(lengths, dtype=np.int32, out=begins[1:])
