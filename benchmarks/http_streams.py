"""How far continuous batching carries: tokens per second over HTTP at n streams against one.

    python -m benchmarks.http_streams [--model-dir DIR] [--weights int8] [--tokens 128] [--rounds 5]

Every round measures one stream and n streams in turn, so that a noisy neighbour hits both; the table shows
the median over the rounds of the ratio n streams / one stream.
"""

import argparse
import asyncio
import statistics
import time
from functools import partial
from pathlib import Path

import httpx

from benchmarks.chat import chat, user
from benchmarks.plots import Chart
from benchmarks.report import publish
from benchmarks.rounds import alternate, median_ratio
from benchmarks.table import Row
from tests.live_server import LiveServer

STREAMS = (4, 16, 32)


async def tokens_per_second(base_url: str, streams: int, tokens: int) -> float:
    """`streams` clients at once, each streaming one answer of `tokens` tokens."""
    async with httpx.AsyncClient(base_url=base_url, timeout=600) as client:
        questions = ([user(f"Tell me story number {number}.")] for number in range(streams))
        start = time.perf_counter()
        await asyncio.gather(*(chat(client, messages, tokens) for messages in questions))
        return streams * tokens / (time.perf_counter() - start)


def measure(base_url: str, tokens: int, rounds: int) -> list[Row]:
    """Median tokens/s of one stream, and of n streams with the median ratio to it."""
    asyncio.run(tokens_per_second(base_url, max(STREAMS), tokens))  # warm-up
    alone: list[float] = []
    rows: list[Row] = []
    for streams in STREAMS:
        speeds = alternate(rounds, {n: partial(_speed, base_url, n, tokens) for n in (1, streams)})
        alone += speeds[1]
        rows.append(_row(streams, speeds[streams], median_ratio(speeds[streams], speeds[1])))
    return [_row(1, alone, 1.0), *rows]


def _speed(base_url: str, streams: int, tokens: int, _round: int) -> float:
    return asyncio.run(tokens_per_second(base_url, streams, tokens))


def _row(streams: int, speeds: list[float], ratio: float) -> Row:
    return {"streams": streams, "tokens/s": statistics.median(speeds), "x one stream": ratio}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model-dir", type=Path, help="default: the embedded model")
    parser.add_argument("--weights", default="int8", choices=["fp16", "int8", "int4"])
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    model = {"model_dir": options.model_dir} if options.model_dir else {}
    with LiveServer(weights=options.weights, max_num_seqs=max(STREAMS), **model) as server:
        rows = measure(server.base_url, options.tokens, options.rounds)
    name = "http_streams" if options.model_dir is None else f"http_streams_{options.model_dir.name}"
    settings = {"weights": options.weights, "tokens": options.tokens, "rounds": options.rounds}
    chart = Chart("Tokens per second over HTTP", "streams", ("x one stream",), "times one stream's")
    publish(name, settings, rows, chart)


if __name__ == "__main__":
    main()
