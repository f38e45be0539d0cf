"""Holds an answer against the logits a runner gives for it, token by token; knows no queue and no device."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.engine.batch import Batch, ScheduledChunk
from service.engine.step_loop import Runner
from service.engine.token_events import EngineRequest

_NO_SEQUENCE = -1


@dataclass(frozen=True, slots=True)
class TokenScore:
    """One token of an answer, after the prompt and the answer's tokens before it."""

    token_id: int
    best_id: int  # what greedy sampling would have chosen
    gap: float  # logit of best_id less that of token_id, in standard deviations of the row; NaN logits: inf


def score_answer(
    runner: Runner,
    block_size: int,
    max_num_batched_tokens: int,
    request: EngineRequest,
    answer: Sequence[int],
) -> tuple[TokenScore, ...]:
    """Run the prompt in chunks and then `answer` token by token, as the engine would if it chose them.

    Uses the KV blocks from 0 on; they must be free, hold it all, and are left as they come.
    """
    num_prompt = len(request.token_ids)
    token_ids = np.concatenate([request.token_ids, np.array(answer, dtype=np.int64)])
    step = max_num_batched_tokens - max_num_batched_tokens % block_size
    ends = [*range(step, num_prompt, step), *range(num_prompt, len(token_ids))]
    scores: list[TokenScore] = []
    begin = 0
    for end in ends:
        spans = tuple(s for s in request.image_spans if s.start < end and begin < s.start + len(s.embeddings))
        blocks = np.arange(-(-end // block_size), dtype=np.int32)
        samples = end >= num_prompt
        chunk = ScheduledChunk(_NO_SEQUENCE, token_ids[begin:end], begin, blocks, spans, samples)
        logits = runner.run(Batch((chunk,), end - begin, int(samples)))
        if samples:
            scores.append(_score(logits[0], int(token_ids[end])))
        begin = end
    return tuple(scores)


def _score(logits: NDArray[np.float32], token_id: int) -> TokenScore:
    """`logits` [vocab_size] of one position."""
    best_id = int(logits.argmax())
    if not np.isfinite(logits).all():
        return TokenScore(token_id, best_id, float("inf"))
    row = logits.astype(np.float64)
    spread = float(row.std())
    difference = float(row[best_id] - row[token_id])
    # All equal: such a row says nothing, so it does not say the token.
    return TokenScore(token_id, best_id, difference / spread if spread > 0 else float("inf"))
