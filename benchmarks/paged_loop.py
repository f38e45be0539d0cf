"""The least that can drive the paged graph: a fixed batch and argmax. No scheduler, no sampler, no thread."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from benchmarks.model import BenchModel
from benchmarks.service_engine import MAX_BATCHED_TOKENS, device_config
from benchmarks.streams import StreamTimes
from service.engine.kv_cache import KVCache, read_layout
from service.engine.language_model import LanguageModel, compile_text_embeddings


class PagedLoop:
    """Runs on the very graph that `language_model` compiled, with a KV cache of its own."""

    def __init__(self, model: BenchModel, language_model: LanguageModel, kv_tokens: int = 8192) -> None:
        text = compile_text_embeddings(ov.Core(), model.text_embeddings, device_config(model))
        self._hidden_size = language_model.hidden_size
        self._text_request = text.create_infer_request()
        self._request = language_model.compiled.create_infer_request()
        self._block_size = language_model.block_size
        self._cache = KVCache(read_layout(language_model.compiled), -(-kv_tokens // self._block_size))
        for name, tensor in self._cache.tensors.items():
            self._request.set_tensor(name, tensor)

    def run(self, prompts: Sequence[NDArray[np.int64]], num_tokens: int) -> list[StreamTimes]:
        """Prompts of one length, all prefilled before any decodes; a first token's time is no TTFT."""
        start_s = time.perf_counter()
        length = len(prompts[0])
        blocks_each = -(-(length + num_tokens) // self._block_size)
        blocks = np.arange(len(prompts) * blocks_each, dtype=np.int32).reshape(len(prompts), blocks_each)
        at_once = max(1, MAX_BATCHED_TOKENS // length)
        firsts = [
            self._prefill(np.stack(prompts[begin : begin + at_once]), blocks[begin : begin + at_once])
            for begin in range(0, len(prompts), at_once)
        ]
        rows, times = [np.concatenate(firsts)], [time.perf_counter()]
        self._decode(rows, times, blocks, length, num_tokens - 1)
        answers = np.stack(rows, axis=1).tolist()
        return [StreamTimes(start_s, tuple(times), tuple(answer)) for answer in answers]

    def _prefill(self, ids: NDArray[np.int64], blocks: NDArray[np.int32]) -> NDArray[np.int64]:
        num_seqs, length = ids.shape
        positions, past_lens = np.tile(np.arange(length), num_seqs), np.zeros(num_seqs, dtype=np.int32)
        self._set(ids.reshape(1, -1), positions, past_lens, blocks, length)
        return self._infer()

    def _decode(
        self,
        rows: list[NDArray[np.int64]],
        times: list[float],
        blocks: NDArray[np.int32],
        length: int,
        steps: int,
    ) -> None:
        """Inputs are written in place: nothing is allocated from step to step."""
        positions = np.full(len(blocks), length, dtype=np.int64)
        past_lens = positions.astype(np.int32)
        ids = rows[0][None].copy()
        context = self._set(ids, positions, past_lens, blocks, length + 1)
        for _ in range(steps):
            ids[0] = self._infer()
            rows.append(ids[0].copy())
            positions += 1
            past_lens += 1
            context += 1
            times.append(time.perf_counter())

    def _set(
        self,
        ids: NDArray[np.int64],  # [1, tokens]
        positions: NDArray[np.int64],  # [tokens]
        past_lens: NDArray[np.int32],  # [seqs]
        blocks: NDArray[np.int32],  # [seqs, blocks of each]
        context_len: int,
    ) -> NDArray[np.int32]:
        """Give the requests these arrays to read from; -> that of the longest context."""
        num_seqs, num_tokens = len(blocks), ids.shape[1]
        each = num_tokens // num_seqs
        context = np.array(context_len, dtype=np.int32)
        embeds = np.empty(
            (num_tokens, self._hidden_size), dtype=np.float32
        )  # written by one, read by the other
        texts: dict[str, NDArray[Any]] = {"input_ids": ids, "inputs_embeds": embeds[None]}
        for name, array in texts.items():
            self._text_request.set_tensor(name, _shared(array))
        inputs: dict[str, NDArray[Any]] = {
            "inputs_embeds": embeds,
            "position_ids": positions,
            "past_lens": past_lens,
            "subsequence_begins": np.arange(num_seqs + 1, dtype=np.int32) * each,
            "block_indices": blocks.reshape(-1),
            "block_indices_begins": np.arange(num_seqs + 1, dtype=np.int32) * blocks.shape[1],
            "max_context_len": context,
            "sampled_tokens_indices": np.arange(1, num_seqs + 1, dtype=np.int64) * each - 1,
        }
        for name, array in inputs.items():
            self._request.set_tensor(name, _shared(array))
        self._in_use = texts | inputs  # the requests do not keep them alive
        return context

    def _infer(self) -> NDArray[np.int64]:
        self._text_request.infer()
        self._request.infer()
        logits: NDArray[np.float32] = self._request.get_output_tensor(0).data
        best: NDArray[np.int64] = logits.reshape(-1, logits.shape[-1]).argmax(axis=-1)
        return best


def _shared(array: NDArray[Any]) -> ov.Tensor:
    return ov.Tensor(array, shared_memory=True)
