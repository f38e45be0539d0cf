"""What HTTP, text and events add to a token: clients of a live server against the engine alone.

    python -m benchmarks.http_cost [--weights int4] [--streams 16]

The clients run in this process and on the same cores, so their work counts as the server's. Both sides get
prompts of the same length and run in turn, each beside the other's idle process.
"""

import argparse
import asyncio
import statistics

import httpx
import numpy as np

from benchmarks.chat import ChatReply, chat, user
from benchmarks.model import BenchModel, add_arguments, open_model
from benchmarks.plots import Chart
from benchmarks.report import publish
from benchmarks.rounds import alternate, median_ratio
from benchmarks.service_engine import ServiceEngine
from benchmarks.streams import random_prompts, step_s
from benchmarks.table import Row
from tests.live_server import LiveServer

_MICRO = 1e6


async def _ask(base_url: str, streams: int, tokens: int, number: int) -> list[ChatReply]:
    async with httpx.AsyncClient(base_url=base_url, timeout=600) as client:
        texts = [f"{number:03} Tell me story number {index:03}." for index in range(streams)]
        return list(await asyncio.gather(*(chat(client, [user(text)], tokens) for text in texts)))


def measure(base_url: str, engine: ServiceEngine, vocab_size: int, options: argparse.Namespace) -> Row:
    """Medians of a step's time with and without the server, their ratio, and the difference for one token."""
    streams, tokens = options.streams, options.tokens
    warm_up = asyncio.run(_ask(base_url, streams, 2, options.rounds))
    length = round(statistics.fmean(reply.prompt_tokens for reply in warm_up))

    def through_http(number: int) -> float:
        replies = asyncio.run(_ask(base_url, streams, tokens, number))
        return step_s([reply.times for reply in replies], tokens)

    def alone(number: int) -> float:
        prompts = random_prompts(np.random.default_rng(number), streams, length, vocab_size)
        return step_s(engine.run(prompts, tokens), tokens)

    alone(options.rounds)  # warm-up
    steps = alternate(options.rounds, {"engine": alone, "http": through_http})
    added = [http - engine_s for http, engine_s in zip(steps["http"], steps["engine"], strict=True)]
    return {
        "streams": streams,
        "engine step ms": statistics.median(steps["engine"]) * 1e3,
        "HTTP step ms": statistics.median(steps["http"]) * 1e3,
        "HTTP / engine": median_ratio(steps["http"], steps["engine"]),
        "added µs a token": statistics.median(added) / streams * _MICRO,
    }


def run(model: BenchModel, options: argparse.Namespace) -> list[Row]:
    settings = {"model_dir": model.directory, "weights": model.weights, "max_num_seqs": options.streams}
    with (
        LiveServer(**settings, kv_cache_size="1GiB") as server,
        ServiceEngine(model, options.streams) as engine,
    ):
        return [measure(server.base_url, engine, model.manifest.model.vocab_size, options)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=4)
    options = parser.parse_args()
    model = open_model(options)
    settings = {"model": model.label, "tokens": options.tokens, "rounds": options.rounds}
    chart = Chart("A decode step", "streams", ("engine step ms", "HTTP step ms"), "ms")
    publish(f"http_cost_{model.label}", settings, run(model, options), chart)


if __name__ == "__main__":
    main()
