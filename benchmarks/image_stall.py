"""Whether running streams stall while an image comes in: their tokens' distances, quiet and then.

    python -m benchmarks.image_stall [--weights int4] [--streams 4] [--rounds 3] [--quiet 100]

Every round has `--streams` clients that stream answers all along. First nobody disturbs them; then a request
with a new image of 1344 x 1344 pixels (an overview and nine slices of the published shape) is sent, up to its
first token. A gap is the time between two tokens of one stream, as its client sees it. Gaps are told apart by
when they end: while the image is read and encoded, as the request's `timings` say, or while its prompt is
computed and the first token made.

The aim: the 99th percentile over all of the image's time is at most twice the quiet one.
"""

import argparse
import asyncio
import base64
import io
import statistics
import time
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import httpx
import numpy as np
from PIL import Image

from benchmarks.model import add_arguments, open_model
from benchmarks.report import write_result
from benchmarks.table import Row, as_text
from tests.live_server import LiveServer

_SIDE, _CELL = 1344, 48  # pixels of the image, and of its squares of one colour
_CHAT = "/v1/chat/completions"
_WARM_TOKENS = 8  # of each stream, before it counts
_POLL_S = 0.01

Gaps = dict[str, list[float]]  # milliseconds, by what went on beside the streams


class _Stream:
    """One client whose tokens' arrivals are noted."""

    def __init__(self, client: httpx.AsyncClient, number: int, tokens: int) -> None:
        self.arrivals: list[float] = []
        self._body = {
            "messages": [{"role": "user", "content": f"Tell me story number {number}."}],
            "stream": True,
            "max_tokens": tokens,
            "ignore_eos": True,
            "temperature": 0,
            "logprobs": True,  # a chunk for every token, also for those without text
        }
        self._client = client
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        async with self._client.stream("POST", _CHAT, json=self._body) as reply:
            async for line in reply.aiter_lines():
                if '"logprobs":{' in line:
                    self.arrivals.append(time.perf_counter())

    async def wait_for(self, num_tokens: int) -> None:
        while len(self.arrivals) < num_tokens:
            self.check()
            await asyncio.sleep(_POLL_S)

    def check(self) -> None:
        if self._task.done():
            self._task.result()
            raise SystemExit("a stream ended before the image's answer began: use more --tokens")

    async def leave(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    def gaps_ms(self, begin: float, end: float) -> list[float]:
        return [1e3 * (b - a) for a, b in pairwise(self.arrivals) if begin < b <= end]


def _image_url(seed: int) -> str:
    """Squares of random colours, other ones for every seed."""
    cells = _SIDE // _CELL
    colours = np.random.default_rng(seed).integers(0, 256, (cells, cells, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(colours.repeat(_CELL, axis=0).repeat(_CELL, axis=1)).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


async def _ask_about(client: httpx.AsyncClient, image_url: str) -> dict[str, Any]:
    """Usage and timings of a one-token answer."""
    image = {"type": "image_url", "image_url": {"url": image_url}}
    question = {"type": "text", "text": "What is in the picture?"}
    body = {
        "messages": [{"role": "user", "content": [image, question]}],
        "max_tokens": 1,
        "temperature": 0,
        "timings": True,
    }
    reply = await client.post(_CHAT, json=body)
    reply.raise_for_status()
    answer: dict[str, Any] = reply.json()
    return answer


async def run_round(base_url: str, number: int, options: argparse.Namespace) -> tuple[Gaps, dict[str, Any]]:
    """The gaps of one round, and what the image's answer says of itself."""
    image_url = _image_url(number)  # here, because drawing it would keep the streams from being read
    async with httpx.AsyncClient(base_url=base_url, timeout=3600) as client:
        streams = [_Stream(client, 100 * number + i, options.tokens) for i in range(options.streams)]
        await asyncio.gather(*(stream.wait_for(_WARM_TOKENS) for stream in streams))
        quiet_from = time.perf_counter()
        await asyncio.gather(*(stream.wait_for(_WARM_TOKENS + options.quiet) for stream in streams))
        image_from = time.perf_counter()
        answer = await _ask_about(client, image_url)
        image_to = time.perf_counter()
        for stream in streams:
            stream.check()
            await stream.leave()
    encoded = image_from + answer["timings"]["image_ms"] / 1e3
    periods = {
        "quiet": (quiet_from, image_from),
        "encoding": (image_from, encoded),
        "prefill": (encoded, image_to),
        "image": (image_from, image_to),
    }
    gaps = {name: [g for s in streams for g in s.gaps_ms(*period)] for name, period in periods.items()}
    return gaps, answer


def _row(period: str, gaps_ms: Sequence[float], by_round: Sequence[float] | None) -> Row:
    return {
        "period": period,
        "gaps": len(gaps_ms),
        **{f"p{p} ms": float(np.percentile(gaps_ms, p)) for p in (50, 90, 99)},
        "longest ms": max(gaps_ms),
        "p99 / quiet (median of rounds)": statistics.median(by_round) if by_round else "-",
    }


def measure(base_url: str, options: argparse.Namespace) -> dict[str, Any]:
    pooled: defaultdict[str, list[float]] = defaultdict(list)
    ratios: defaultdict[str, list[float]] = defaultdict(list)
    answers = []
    for number in range(options.rounds + 1):
        gaps, answer = asyncio.run(run_round(base_url, number, options))
        if not number:  # the first one warms up
            continue
        answers.append({"timings": answer["timings"], "usage": answer["usage"]})
        for name, values in gaps.items():
            pooled[name] += values
            if name in ("encoding", "image"):
                ratios[name].append(float(np.percentile(values, 99) / np.percentile(gaps["quiet"], 99)))
    return {
        "rows": [_row(name, values, ratios.get(name)) for name, values in pooled.items() if values],
        "p99_to_quiet_by_round": dict(ratios),
        "answers": answers,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quiet", type=int, default=100, help="tokens of each stream before the image")
    parser.add_argument("--tokens", type=int, default=3000, help="of each stream: more than a round takes")
    options = parser.parse_args()
    model = open_model(options)
    with LiveServer(model_dir=model.directory, weights=model.weights) as server:
        figures = measure(server.base_url, options)
    print(as_text(figures["rows"]))
    settings = {name: getattr(options, name) for name in ("streams", "rounds", "quiet", "tokens")}
    path = write_result(f"image_stall_{model.label}", {"model": model.label, **settings}, figures)
    print(f"written to {path.name}")


if __name__ == "__main__":
    main()
