"""A small honest fake of the language model: its KV cache holds token ids and what images show, its next
token depends on all of them as read back through the block table, so a wrong block, position, chunk or image
changes the answer."""

import hashlib
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


def visible(request: EngineRequest) -> NDArray[np.int64]:
    """The prompt as the model sees it, [num_prompt_tokens]: in a slot what its embedding says, not its id."""
    context = request.token_ids.copy()
    for span in request.image_spans:
        context[span.start : span.start + len(span.embeddings)] = span.embeddings[:, 0]
    return context


def greedy_answer(prompt: NDArray[np.int64], num_tokens: int) -> list[int]:
    """What any engine must answer, computed with no engine at all."""
    context = prompt
    for _ in range(num_tokens):
        context = np.append(context, next_token(context))
    return [int(token) for token in context[len(prompt) :]]


def dense_logits(context: NDArray[np.int64]) -> NDArray[np.float32]:
    """Logits after `context` that leave several tokens a chance, [VOCAB_SIZE]; no two are alike."""
    seed = [int(token) + 1 for token in context.tolist()]
    logits = np.random.default_rng(seed).normal(0, 2, VOCAB_SIZE).astype(np.float32)
    logits[EOS] -= 2  # or no answer would be long
    return logits


class ScriptedRunner:
    """Stores what it is given where it is told, and looks it up again.

    With `quantises`, what it stores in a block depends, as in a u8 cache, on how the block was filled: a
    chunk that begins inside a block spoils it a little.
    """

    def __init__(
        self, num_blocks: int, block_size: int, on_run: Callable[[Batch], None], quantises: bool = False
    ) -> None:
        self._quantises = quantises
        self._block_size = block_size
        self._cache = np.full((num_blocks, block_size), -1, dtype=np.int64)
        self._on_run = on_run
        self.vocab_size = VOCAB_SIZE  # ids beyond are never likely
        self.poison: set[int] = set()  # next tokens that come out as NaN
        self.num_runs = 0

    def run(self, batch: Batch, beside: Callable[[], None] | None = None) -> NDArray[np.float32]:
        self._on_run(batch)
        if beside is not None:
            beside()
        self.num_runs += 1
        for source, destination in batch.block_copies:
            self._cache[destination] = self._cache[source]
        for chunk in batch.chunks:
            self._write(chunk)
        rows = [row for chunk in batch.chunks for row in self._rows(chunk)]
        return np.array(rows, dtype=np.float32)

    def _write(self, chunk: ScheduledChunk) -> None:
        context_len = chunk.past_len + len(chunk.token_ids)
        assert len(chunk.block_indices) == -(-context_len // self._block_size)
        tokens = chunk.token_ids.copy()
        for span in chunk.image_spans:
            for slot, value in enumerate(span.embeddings[:, 0], span.start - chunk.past_len):
                if 0 <= slot < len(tokens):
                    tokens[slot] = value
        if self._quantises and chunk.past_len % self._block_size:
            self._cache[chunk.block_indices[chunk.past_len // self._block_size]] += 1000
        for position, token in enumerate(tokens.tolist(), chunk.past_len):
            block = chunk.block_indices[position // self._block_size]
            self._cache[block, position % self._block_size] = token

    def _rows(self, chunk: ScheduledChunk) -> list[NDArray[np.float32]]:
        """Logits after each of the chunk's last `num_rows` tokens."""
        context = self._cache[chunk.block_indices].reshape(-1)[: chunk.past_len + len(chunk.token_ids)]
        ends = range(len(context) - chunk.num_rows + 1, len(context) + 1)
        return [self._logits_after(context[:end]) for end in ends]

    def _logits_after(self, context: NDArray[np.int64]) -> NDArray[np.float32]:
        token = next_token(context)
        logits = np.linspace(-1, 1, self.vocab_size, dtype=np.float32)
        logits[token] = np.nan if token in self.poison else 9.0
        return logits


class DenseRunner(ScriptedRunner):
    """With `dense_logits`, for searches and draws that shall have something to decide."""

    def _logits_after(self, context: NDArray[np.int64]) -> NDArray[np.float32]:
        logits = dense_logits(context)
        if int(context[-1]) in self.poison:
            logits[7] = np.nan
        return logits


class ScriptedModel:
    """Stands where LanguageModel does; a step can be held, watched or made to fail."""

    block_size = 4
    block_bytes = 10
    hidden_size = 8
    quantises_kv_cache = False
    is_paged = True

    def __init__(self, vocab_size: int = VOCAB_SIZE) -> None:
        self.vocab_size = vocab_size  # ids beyond VOCAB_SIZE are never likely
        self.runner: ScriptedRunner | None = None
        self.may_run = threading.Event()  # cleared: the next step waits
        self.may_run.set()
        self.in_step = threading.Event()
        self.failure: BaseException | None = None

    def new_runner(self, num_blocks: int, max_num_seqs: int, max_num_batched_tokens: int) -> ScriptedRunner:
        self.runner = ScriptedRunner(num_blocks, self.block_size, self._on_run)
        self.runner.vocab_size = self.vocab_size
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
    cache_salt: bytes = b"",
    priority: int = 0,
) -> EngineRequest:
    sampling = sampling or SamplingParams(max_tokens=5)
    tokens = np.array(prompt, dtype=np.int64)
    return EngineRequest(request_id, tokens, image_spans, sampling, cache_salt, priority)


def image_span(start: int, pixels: bytes, num_slots: int = 6) -> ImageSpan:
    """The slots of a slice, as the vision room would give them: its pixels decide digest and embeddings."""
    digest = hashlib.sha256(pixels).digest()
    values = np.frombuffer(digest, dtype=np.uint8)[:num_slots].astype(np.float32)
    embeddings = np.repeat(values[:, None] + 100, ScriptedModel.hidden_size, axis=1)
    return ImageSpan(start, embeddings, digest)
