"""How far continuous batching carries: tokens per second over HTTP at n streams against one.

    python -m benchmarks.http_streams [--model-dir DIR] [--weights int8] [--tokens 128] [--rounds 5]

Every round measures one stream and n streams in turn, so that a noisy neighbour hits both; the table shows
the median over the rounds of the ratio n streams / one stream.
"""

import argparse
import asyncio
import statistics
import time
from pathlib import Path
from typing import Any

import httpx

from benchmarks.chat import chat, user
from benchmarks.report import write_result
from tests.live_server import LiveServer

STREAMS = (4, 16, 32)


async def tokens_per_second(base_url: str, streams: int, tokens: int) -> float:
    """`streams` clients at once, each streaming one answer of `tokens` tokens."""
    async with httpx.AsyncClient(base_url=base_url, timeout=600) as client:
        questions = ([user(f"Tell me story number {number}.")] for number in range(streams))
        start = time.perf_counter()
        await asyncio.gather(*(chat(client, messages, tokens) for messages in questions))
        return streams * tokens / (time.perf_counter() - start)


def measure(base_url: str, tokens: int, rounds: int) -> dict[str, Any]:
    """Median tokens/s of one stream, and of n streams with the median ratio to it."""
    asyncio.run(tokens_per_second(base_url, max(STREAMS), tokens))  # warm-up
    alone: list[float] = []
    figures: dict[str, Any] = {}
    for streams in STREAMS:
        ratios, speeds = [], []
        for _ in range(rounds):
            one = asyncio.run(tokens_per_second(base_url, 1, tokens))
            many = asyncio.run(tokens_per_second(base_url, streams, tokens))
            alone.append(one)
            speeds.append(many)
            ratios.append(many / one)
        figures[str(streams)] = {
            "tokens_per_s": round(statistics.median(speeds), 1),
            "ratio_to_one": round(statistics.median(ratios), 2),
        }
    return {"1": {"tokens_per_s": round(statistics.median(alone), 1), "ratio_to_one": 1.0}} | figures


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
        figures = measure(server.base_url, options.tokens, options.rounds)
    print(f"{'streams':>8} {'tokens/s':>10} {'x one stream':>13}")
    for streams, row in figures.items():
        print(f"{streams:>8} {row['tokens_per_s']:>10.1f} {row['ratio_to_one']:>13.2f}")
    name = "http_streams" if options.model_dir is None else f"http_streams_{options.model_dir.name}"
    settings = {"weights": options.weights, "tokens": options.tokens, "rounds": options.rounds}
    print(f"written to {write_result(name, settings, figures).name}")


if __name__ == "__main__":
    main()
