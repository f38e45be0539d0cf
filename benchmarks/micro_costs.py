"""What a step costs beside the model: Python around a runner that returns at once, and sampling alone.

    python -m benchmarks.micro_costs [--sequences 32] [--steps 400] [--rounds 5] [--vocab-size 122753]

The first table drives the real engine, its thread, scheduler, input tensors and sampler, over compiled models
that compute nothing. `thread` is the processor time of the engine's thread from one inference to the next,
everything included; `wall` the time that passes meanwhile, in which the event loop hands the events on to as
many clients. The parts are measured in a second run, without thread and clients.

The second table is the sampler alone on logits as wide as the model's: what it adds to a step whose product
with the vocabulary it follows. All figures are medians over a round's steps, and of these the best round:
what disturbs them only adds.
"""

import argparse
import asyncio
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import openvino as ov

from benchmarks.report import write_result
from benchmarks.table import Row, as_text
from service.engine.block_manager import BlockManager
from service.engine.engine import Engine, EngineConfig
from service.engine.kv_cache import CachePort, KVCache, KVCacheLayout
from service.engine.model_runner import ModelRunner
from service.engine.sampler import Sampler, SamplerState
from service.engine.sampling_params import SamplingParams
from service.engine.scheduler import Scheduler
from service.engine.step_loop import StepLoop
from service.engine.token_events import EngineRequest

EOS = 2
NARROW = 256  # vocabulary of the first table: what is done for every entry of it is the second's
PROMPT_TOKENS = 600
HIDDEN, BLOCK_SIZE = 8, 32

CHAT = SamplingParams(1, temperature=0.7, top_p=0.8, top_k=100, repetition_penalty=1.05, seed=1)
KINDS = {
    "greedy": SamplingParams(1),
    "greedy, repetition_penalty": SamplingParams(1, repetition_penalty=1.2),
    "the original's chat (top_k 100)": CHAT,
    "top_p alone": SamplingParams(1, temperature=0.7, top_p=0.8, seed=1),
    "min_p alone": SamplingParams(1, temperature=0.7, min_p=0.05, seed=1),
    "temperature alone": SamplingParams(1, temperature=0.7, seed=1),
    "greedy, 5 top_logprobs": SamplingParams(1, logprobs=5),
}


_COLUMNS = ("thread", "wall", "schedule", "inputs", "sample", "advance")


class _NothingComputed:
    """In place of a compiled model and its request: an output of the right size, at once."""

    def __init__(self, width: int, size_from: str, on_infer: Callable[[], None], most_rows: int) -> None:
        self._size_from = size_from  # the input that says how many rows are wanted
        self._on_infer = on_infer
        self._output = ov.Tensor(ov.Type.f32, ov.Shape([1, most_rows, width]))
        self._output.data[...] = np.random.default_rng(0).standard_normal(self._output.shape) * 3
        self._inputs: dict[str, ov.Tensor] = {}
        self.partial_shape = ov.PartialShape([1, -1, width])

    def output(self, index: int) -> "_NothingComputed":
        return self

    def create_infer_request(self) -> "_NothingComputed":
        return self

    def set_tensor(self, name: str, tensor: ov.Tensor) -> None:
        self._inputs[name] = tensor

    def infer(self) -> None:
        self._output.shape = [1, self._inputs[self._size_from].size, self.partial_shape[2].get_length()]
        self._on_infer()

    def get_output_tensor(self, index: int) -> ov.Tensor:
        return self._output


class _Clock:
    """Notes when inferences come: the differences are what steps cost."""

    def __init__(self) -> None:
        self.thread_s: list[float] = []
        self.wall_s: list[float] = []

    def __call__(self) -> None:
        self.thread_s.append(time.thread_time())
        self.wall_s.append(time.perf_counter())


class _Model:
    """Stands where LanguageModel does."""

    is_paged = True
    block_size = BLOCK_SIZE
    block_bytes = 2 * BLOCK_SIZE
    quantises_kv_cache = True
    hidden_size = HIDDEN
    vocab_size = NARROW

    def __init__(self) -> None:
        self.clock = _Clock()

    def new_runner(self, num_blocks: int, max_num_seqs: int, max_num_batched_tokens: int) -> ModelRunner:
        shape = (1, BLOCK_SIZE, 1)
        ports = [CachePort(f"{name}_cache.0", shape, ov.Type.u8) for name in ("key", "value")]
        cache = KVCache(KVCacheLayout(tuple(ports), BLOCK_SIZE), num_blocks)
        language = _NothingComputed(NARROW, "sampled_tokens_indices", self.clock, max_num_seqs)
        text = _NothingComputed(HIDDEN, "input_ids", lambda: None, max_num_batched_tokens)
        models = cast(ov.CompiledModel, language), cast(ov.CompiledModel, text)
        return ModelRunner(*models, cache, max_num_seqs, max_num_batched_tokens)


def _requests(sampling: SamplingParams, sequences: int, steps: int) -> list[EngineRequest]:
    params = {name: getattr(sampling, name) for name in SamplingParams.__dataclass_fields__}
    params |= {"max_tokens": steps, "ignore_eos": True}
    rng = np.random.default_rng(1)
    return [
        EngineRequest(str(i), rng.integers(3, NARROW, PROMPT_TOKENS), (), SamplingParams(**params))
        for i in range(sequences)
    ]


def _num_blocks(sequences: int, steps: int) -> int:
    return sequences * (-(-(PROMPT_TOKENS + steps) // BLOCK_SIZE) + 1)


def _decode_steps_us(times: list[float], steps: int) -> float:
    """Median of the last half of the steps: by then all sequences decode."""
    return statistics.median(np.diff(times[-steps // 2 :]).tolist()) * 1e6


def whole_steps(sampling: SamplingParams, sequences: int, steps: int) -> dict[str, float]:
    """Microseconds from one inference of the engine's thread to the next, `sequences` clients listening."""
    model = _Model()
    blocks = _num_blocks(sequences, steps)
    config = EngineConfig(
        PROMPT_TOKENS + steps, EOS, blocks * model.block_bytes, sequences, sequences * PROMPT_TOKENS
    )
    engine = Engine(model, config)

    async def listen(request: EngineRequest) -> None:
        async for _ in engine.stream(request):
            pass

    async def run() -> None:
        engine.start()
        await asyncio.gather(*map(listen, _requests(sampling, sequences, steps)))
        await asyncio.to_thread(engine.stop)

    asyncio.run(run())
    return {
        "thread": _decode_steps_us(model.clock.thread_s, steps),
        "wall": _decode_steps_us(model.clock.wall_s, steps),
    }


class _Timed:
    """An object whose methods' times are noted under the names given, in seconds."""

    def __init__(self, inner: object, names: dict[str, str], seconds: dict[str, list[float]]) -> None:
        self._inner, self._names, self._seconds = inner, names, seconds

    def __getattr__(self, method: str) -> Any:
        found = getattr(self._inner, method)
        if method not in self._names:
            return found

        def timed(*args: Any) -> Any:
            began = time.thread_time()
            result = found(*args)
            self._seconds[self._names[method]].append(time.thread_time() - began)
            return result

        return timed


def step_parts(sampling: SamplingParams, sequences: int, steps: int) -> dict[str, float]:
    """Microseconds of each part of StepLoop.step()."""
    model, seconds = _Model(), defaultdict[str, list[float]](list)
    blocks = BlockManager(_num_blocks(sequences, steps), BLOCK_SIZE)
    runner = model.new_runner(blocks.num_blocks, sequences, sequences * PROMPT_TOKENS)
    scheduler = Scheduler(blocks, sequences, sequences * PROMPT_TOKENS, "prefilled")
    loop: Any = StepLoop(runner, scheduler, NARROW, EOS)
    loop._runner = _Timed(runner, {"run": "inputs"}, seconds)
    loop._scheduler = _Timed(scheduler, {"schedule": "schedule"}, seconds)
    loop._sampler = _Timed(loop._sampler, {"sample_with_logprobs": "sample"}, seconds)
    timed_loop = _Timed(loop, {"step": "step"}, seconds)
    for request in _requests(sampling, sequences, steps):
        loop.add(request)
    while loop.has_work:
        timed_loop.step()
    parts = {name: statistics.median(times[-steps // 2 :]) * 1e6 for name, times in seconds.items()}
    parts["advance"] = parts["step"] - sum(parts[name] for name in ("schedule", "inputs", "sample"))
    return parts


def sampling_ms(sampling: SamplingParams, sequences: int, vocab_size: int, repeats: int) -> float:
    """Milliseconds of one call of the sampler for `sequences` rows: the best of `repeats`."""
    raw = np.random.default_rng(2).standard_normal((sequences, vocab_size)).astype(np.float32) * 3
    states = [SamplerState(sampling, EOS, vocab_size) for _ in range(sequences)]
    logits, sampler, times = np.empty_like(raw), Sampler(), []
    for _ in range(repeats):
        logits[:] = raw
        began = time.thread_time()
        sampler.sample_with_logprobs(logits, states)
        times.append(time.thread_time() - began)
    return min(times) * 1e3


def measure(sequences: int, steps: int, rounds: int, vocab_size: int) -> dict[str, list[Row]]:
    step_us: dict[str, dict[str, float]] = {}
    for name, params in {"greedy": KINDS["greedy"], "the original's chat": CHAT}.items():
        rows = [
            whole_steps(params, sequences, steps) | step_parts(params, sequences, steps)
            for _ in range(rounds)
        ]
        step_us[name] = {part: round(min(row[part] for row in rows), 1) for part in rows[0]}
    sampler_ms = {
        name: round(sampling_ms(params, sequences, vocab_size, 3 * rounds), 2)
        for name, params in KINDS.items()
    }
    return {
        "rows": [{"us a step": name, **{c: parts[c] for c in _COLUMNS}} for name, parts in step_us.items()],
        "sampler": [{"sampling": name, "ms for all rows": ms} for name, ms in sampler_ms.items()],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sequences", type=int, default=32)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--vocab-size", type=int, default=122_753)
    options = parser.parse_args()
    figures = measure(options.sequences, options.steps, options.rounds, options.vocab_size)
    print(as_text(figures["rows"]), as_text(figures["sampler"]), sep="\n\n")
    print(f"written to {write_result('micro_costs', vars(options), figures).name}")


if __name__ == "__main__":
    main()
