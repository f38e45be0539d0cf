"""One request after another through the graph as it lies on disk, logits for every position."""

import time
from collections.abc import Sequence

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from benchmarks.model import BenchModel
from benchmarks.service_engine import device_config
from benchmarks.streams import StreamTimes
from service.engine.language_model import compile_language_model, compile_text_embeddings


class StatefulLoop:
    """Compiled with the properties the service uses: only the way of running differs."""

    def __init__(self, model: BenchModel) -> None:
        core, config = ov.Core(), device_config(model)
        graph = core.read_model(model.language_model)
        self._request = compile_language_model(core, graph, config).create_infer_request()
        self._text = compile_text_embeddings(core, model.text_embeddings, config).create_infer_request()

    def run(self, prompts: Sequence[NDArray[np.int64]], num_tokens: int) -> list[StreamTimes]:
        """All asked for at once, answered in turn; greedy."""
        start_s = time.perf_counter()
        return [self._answer(prompt, num_tokens, start_s) for prompt in prompts]

    def _answer(self, prompt: NDArray[np.int64], num_tokens: int, start_s: float) -> StreamTimes:
        self._request.reset_state()
        times: list[float] = []
        answer: list[int] = []
        ids, past = prompt, 0
        for _ in range(num_tokens):
            ids, past = self._step(ids, past), past + len(ids)
            times.append(time.perf_counter())
            answer += ids.tolist()
        return StreamTimes(start_s, tuple(times), tuple(answer))

    def _step(self, ids: NDArray[np.int64], past: int) -> NDArray[np.int64]:
        """The next token's id, [1], after `ids`."""
        end = past + len(ids)
        embeds = self._text.infer({"input_ids": ids[None]})[0]
        self._request.infer(
            {
                "inputs_embeds": embeds,
                "attention_mask": np.ones((1, end), dtype=np.int64),
                "position_ids": np.arange(past, end, dtype=np.int64)[None],
                "beam_idx": np.zeros(1, dtype=np.int32),
            }
        )
        logits: NDArray[np.float32] = self._request.get_output_tensor(0).data
        best: NDArray[np.int64] = logits[0, -1:].argmax(axis=-1)
        return best
