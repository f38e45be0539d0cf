"""A small honest fake of the language model: its KV cache holds token ids, its next token depends on all of
them as read back through the block table, so a wrong block, position or chunk changes the answer."""

import threading
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from service.engine.batch import Batch, ScheduledChunk
from service.engine.sampling_params import SamplingParams
from service.engine.token_events import EngineRequest, ImageSpan

VOCAB_SIZE = 50
EOS = 2


def next_token(context: NDArray[np.int64]) -> int:
    """The likeliest token after `context`; never an id below 3."""
    digest = 7
    for token in context.tolist():
        digest = (digest * 31 + token + 1) % 1_000_003
    return 3 + digest % (VOCAB_SIZE - 3)


def greedy_answer(prompt: NDArray[np.int64], num_tokens: int) -> list[int]:
    """What any engine must answer, computed with no engine at all."""
    context = prompt
    for _ in range(num_tokens):
        context = np.append(context, next_token(context))
    return [int(token) for token in context[len(prompt) :]]


class ScriptedRunner:
    """Stores what it is given where it is told, and looks it up again."""

    def __init__(self, num_blocks: int, block_size: int, on_run: Callable[[Batch], None]) -> None:
        self._block_size = block_size
        self._cache = np.full((num_blocks, block_size), -1, dtype=np.int64)
        self._on_run = on_run
        self.poison: set[int] = set()  # next tokens that come out as NaN
        self.num_runs = 0

    def run(self, batch: Batch) -> NDArray[np.float32]:
        self._on_run(batch)
        self.num_runs += 1
        for chunk in batch.chunks:
            self._write(chunk)
        return np.array([self._logits(chunk) for chunk in batch.chunks if chunk.samples], dtype=np.float32)

    def _write(self, chunk: ScheduledChunk) -> None:
        context_len = chunk.past_len + len(chunk.token_ids)
        assert len(chunk.block_indices) == -(-context_len // self._block_size)
        for position, token in enumerate(chunk.token_ids.tolist(), chunk.past_len):
            block = chunk.block_indices[position // self._block_size]
            self._cache[block, position % self._block_size] = token

    def _logits(self, chunk: ScheduledChunk) -> NDArray[np.float32]:
        context = self._cache[chunk.block_indices].reshape(-1)[: chunk.past_len + len(chunk.token_ids)]
        token = next_token(context)
        logits = np.linspace(-1, 1, VOCAB_SIZE, dtype=np.float32)
        logits[token] = np.nan if token in self.poison else 9.0
        return logits


class ScriptedModel:
    """Stands where LanguageModel does; a step can be held, watched or made to fail."""

    block_size = 4
    block_bytes = 10
    hidden_size = 8
    vocab_size = VOCAB_SIZE

    def __init__(self) -> None:
        self.runner: ScriptedRunner | None = None
        self.may_run = threading.Event()  # cleared: the next step waits
        self.may_run.set()
        self.in_step = threading.Event()
        self.failure: BaseException | None = None

    def new_runner(self, num_blocks: int, max_num_seqs: int, max_num_batched_tokens: int) -> ScriptedRunner:
        self.runner = ScriptedRunner(num_blocks, self.block_size, self._on_run)
        return self.runner

    def _on_run(self, batch: Batch) -> None:
        self.in_step.set()
        self.may_run.wait()
        if self.failure is not None:
            raise self.failure


def request(
    request_id: str,
    prompt: list[int],
    sampling: SamplingParams | None = None,
    image_spans: tuple[ImageSpan, ...] = (),
) -> EngineRequest:
    return EngineRequest(
        request_id, np.array(prompt, dtype=np.int64), image_spans, sampling or SamplingParams(max_tokens=5)
    )
