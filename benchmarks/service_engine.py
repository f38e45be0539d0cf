"""The service's own engine in this process, placed as the service does it; without HTTP and text."""

import asyncio
import itertools
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from benchmarks.model import BenchModel
from benchmarks.streams import StreamTimes
from service.engine.engine import Engine, EngineConfig
from service.engine.language_model import DeviceConfig, LanguageModel
from service.engine.sampling_params import SamplingParams
from service.engine.token_events import EngineRequest
from service.placement import Precisions, place_engines
from service.settings import Settings

# The service's defaults, which peers get too.
MAX_BATCHED_TOKENS = int(Settings.model_fields["max_num_batched_tokens"].default)
KV_CACHE_PRECISION = str(Settings.model_fields["kv_cache_precision"].default)


def device_config(model: BenchModel) -> DeviceConfig:
    """What the service would compile with on this machine's CPU."""
    groups = model.manifest.variants[model.weights].weight_group_size
    return place_engines(("CPU",), Precisions(KV_CACHE_PRECISION, None, groups), None)[0]


class ServiceEngine:
    """A running engine inside the context."""

    def __init__(self, model: BenchModel, max_num_seqs: int = 32, kv_tokens: int = 8192) -> None:
        """`kv_tokens`: room for that many tokens' keys and values."""
        self.language_model = LanguageModel(model.language_model, model.text_embeddings, device_config(model))
        num_blocks = -(-kv_tokens // self.language_model.block_size)
        self._engine = Engine(
            self.language_model,
            EngineConfig(
                max_position_embeddings=model.manifest.model.max_position_embeddings,
                eos_token_id=model.manifest.model.token_ids.eos,
                kv_cache_bytes=num_blocks * self.language_model.block_bytes,
                max_num_seqs=max_num_seqs,
                max_num_batched_tokens=MAX_BATCHED_TOKENS,
            ),
        )
        self._numbers = itertools.count()

    def __enter__(self) -> Self:
        self._engine.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._engine.stop()

    def run(self, prompts: Sequence[NDArray[np.int64]], num_tokens: int) -> list[StreamTimes]:
        """All prompts at once, greedy, `num_tokens` each."""
        return asyncio.run(self._run(prompts, num_tokens))

    async def _run(self, prompts: Sequence[NDArray[np.int64]], num_tokens: int) -> list[StreamTimes]:
        return list(await asyncio.gather(*(self._stream(prompt, num_tokens) for prompt in prompts)))

    async def _stream(self, prompt: NDArray[np.int64], num_tokens: int) -> StreamTimes:
        sampling = SamplingParams(max_tokens=num_tokens, ignore_eos=True)
        request = EngineRequest(str(next(self._numbers)), prompt, (), sampling)
        start_s = time.perf_counter()
        times: list[float] = []
        token_ids: list[int] = []
        async for event in self._engine.stream(request):
            times += [time.perf_counter()] * len(event.token_ids)
            token_ids += event.token_ids
        if len(token_ids) != num_tokens:
            raise RuntimeError("the engine gave fewer tokens than asked for")
        return StreamTimes(start_s, tuple(times), tuple(token_ids))
