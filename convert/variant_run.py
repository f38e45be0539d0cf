"""Owns running a variant's graphs on the CPU in f32, as the oracle of golden tokens and verification."""

from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from convert.requests import Embeddings, Pixels

# Nothing that trades digits for speed: these runs are what others are compared with.
EXACT: dict[str, str | int] = {
    "INFERENCE_PRECISION_HINT": "f32",
    "KV_CACHE_PRECISION": "f32",
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
}


class ImageEncoderRun:
    """A variant's image encoder."""

    def __init__(self, path: Path) -> None:
        self._request = compile_exact(path)

    def __call__(self, pixels: Pixels) -> Embeddings:
        """f32 [n, 3, height, width] -> f32 [n, query_num, hidden]."""
        return infer(self._request, pixel_values=pixels)


class TextEmbeddingsRun:
    """A variant's text table."""

    def __init__(self, path: Path) -> None:
        self._request = compile_exact(path)

    def __call__(self, token_ids: NDArray[np.int64]) -> Embeddings:
        """i64 [batch, tokens] -> f32 [batch, tokens, hidden]."""
        return infer(self._request, input_ids=token_ids)


class LanguageModelRun:
    """A variant's stateful language model, one sequence at a time."""

    def __init__(self, path: Path) -> None:
        self._request = compile_exact(path)
        self._past = 0

    def start(self, embeds: Embeddings) -> NDArray[np.float32]:
        """Logits f32 [tokens, vocab] of a whole prompt, f32 [1, tokens, hidden], after a reset."""
        self._request.reset_state()
        self._past = 0
        return self.step(embeds)

    def step(self, embeds: Embeddings) -> NDArray[np.float32]:
        """Logits f32 [tokens, vocab] of tokens that follow what was seen since start()."""
        begin, end = self._past, self._past + embeds.shape[1]
        self._past = end
        logits = infer(
            self._request,
            inputs_embeds=embeds,
            attention_mask=np.ones((1, end), dtype=np.int64),
            position_ids=np.arange(begin, end, dtype=np.int64)[None],
            beam_idx=np.zeros(1, dtype=np.int32),
        )
        rows: NDArray[np.float32] = logits[0]
        return rows


def compile_exact(path: Path) -> ov.InferRequest:
    """A request on the graph at `path`, compiled for the CPU with EXACT."""
    return ov.Core().compile_model(path, "CPU", EXACT).create_infer_request()


def infer(request: ov.InferRequest, **inputs: NDArray[Any]) -> NDArray[np.float32]:
    """The graph's one output on inputs given by name."""
    request.infer(inputs, share_inputs=True)
    # A copy: the next run overwrites the tensor.
    return np.array(request.get_output_tensor(0).data, dtype=np.float32)
