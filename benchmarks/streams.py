"""What several answers generated side by side are measured by; knows nothing of who generates them."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FIRST_ORDINARY_ID = 200  # below: special ids and bytes


@dataclass(frozen=True, slots=True)
class StreamTimes:
    """One answer: when it was asked for and when each token came, in seconds of time.perf_counter()."""

    start_s: float
    token_s: tuple[float, ...]
    token_ids: tuple[int, ...] = ()  # empty where only times are known

    @property
    def ttft_s(self) -> float:
        """Time to the first token."""
        return self.token_s[0] - self.start_s


def decode_tokens_per_s(streams: Sequence[StreamTimes]) -> float:
    """Tokens per second of all streams together while all of them decode.

    From the last stream's first token to the first stream's last one: neither prefill nor a thinning batch is
    in it. Each stream is measured from its own first token in that time to its own last: tokens of one step
    come one after another, and counting what lies between two moments would lose the last step's.
    """
    begin = max(stream.token_s[0] for stream in streams)
    end = min(stream.token_s[-1] for stream in streams)
    return sum(_tokens_per_s([s for s in stream.token_s if begin <= s <= end]) for stream in streams)


def _tokens_per_s(token_s: Sequence[float]) -> float:
    if len(token_s) < 2:
        raise ValueError("the streams hardly decoded side by side: ask for longer answers")
    return (len(token_s) - 1) / (token_s[-1] - token_s[0])


def mean_ttft_s(streams: Sequence[StreamTimes]) -> float:
    """Mean time to first token."""
    return statistics.fmean(stream.ttft_s for stream in streams)


def equal_share(left: Sequence[StreamTimes], right: Sequence[StreamTimes]) -> float:
    """Share of tokens that two runs of the same greedy streams have in common."""
    pairs = [
        pair
        for ours, theirs in zip(left, right, strict=True)
        for pair in zip(ours.token_ids, theirs.token_ids, strict=True)
    ]
    return sum(ours == theirs for ours, theirs in pairs) / len(pairs)


def random_prompts(
    generator: np.random.Generator, streams: int, num_tokens: int, vocab_size: int
) -> list[NDArray[np.int64]]:
    """`streams` prompts of ordinary tokens that no cache has seen: bos, then whatever comes."""
    ids = generator.integers(FIRST_ORDINARY_ID, vocab_size, (streams, num_tokens), dtype=np.int64)
    ids[:, 0] = 1
    return list(ids)


def step_s(streams: Sequence[StreamTimes], num_tokens: int) -> float:
    """Mean time between two tokens of the stream that began to decode last, beside all others.

    For streams of whose `num_tokens` tokens only the first and the last were timed.
    """
    last = max(streams, key=lambda stream: stream.token_s[0])
    return (last.token_s[-1] - last.token_s[0]) / (num_tokens - 1)


def wall_s(streams: Sequence[StreamTimes]) -> float:
    """From the first request to the last token of all."""
    return max(stream.token_s[-1] for stream in streams) - min(stream.start_s for stream in streams)
