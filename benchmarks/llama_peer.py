"""llama.cpp through llama-cpp-python, one greedy stream; knows nothing of our engine."""

import time
from collections.abc import Sequence
from pathlib import Path

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from benchmarks.gguf_model import GgufFormat, write_gguf
from benchmarks.model import BenchModel
from benchmarks.service_engine import MAX_BATCHED_TOKENS
from benchmarks.streams import StreamTimes
from service.host_limits import num_cores

_CONTEXT_TOKENS = 2048


class LlamaPeer:
    """One context with llama.cpp's defaults, as many threads as there are cores, and our prefill's batch."""

    def __init__(self, model: BenchModel, models: Path, weights: GgufFormat) -> None:
        """Writes the GGUF file into `models`, once."""
        self.path = models / f"{model.manifest.model_id.rpartition('/')[2]}_{weights}.gguf"
        if not self.path.is_file():
            models.mkdir(parents=True, exist_ok=True)
            write_gguf(self.path, model.manifest.model, weights)
        cores = num_cores()
        self._llama = llama_cpp.Llama(
            str(self.path),
            n_ctx=_CONTEXT_TOKENS,
            n_batch=MAX_BATCHED_TOKENS,
            n_ubatch=MAX_BATCHED_TOKENS,
            n_threads=cores,
            n_threads_batch=cores,
            verbose=False,
        )

    def run(self, prompts: Sequence[NDArray[np.int64]], num_tokens: int) -> list[StreamTimes]:
        """One prompt, greedy."""
        (prompt,) = prompts
        start_s = time.perf_counter()
        self._llama.reset()
        times: list[float] = []
        answer: list[int] = []
        ids = prompt.tolist()
        for _ in range(num_tokens):
            self._llama.eval(ids)
            ids = [self._likeliest()]
            times.append(time.perf_counter())
            answer += ids
        return [StreamTimes(start_s, tuple(times), tuple(answer))]

    def close(self) -> None:
        """Give its memory back before another one is made."""
        self._llama.close()

    def _likeliest(self) -> int:
        pointer = llama_cpp.llama_get_logits_ith(self._llama.ctx, -1)
        logits = np.ctypeslib.as_array(pointer, shape=(self._llama.n_vocab(),))
        return int(logits.argmax())
