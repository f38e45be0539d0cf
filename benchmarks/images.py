"""What an image costs over HTTP: asked about first, asked about again, and with one of nine slices changed.

    python -m benchmarks.images [--weights int4]

Times to first token as a client sees them. Every round has a new image, which the service cuts into an
overview and nine slices; a change in one slice shows in the overview too, so two of ten are encoded again,
and the prompt is computed anew from the overview on. The vision tower of the benchmarks' model has a quarter
of its blocks, as the language model of its layers, so images and prompts keep their shares.
"""

import argparse
import asyncio
import statistics
from collections.abc import Sequence

import httpx
import numpy as np
from numpy.typing import NDArray

from benchmarks.chat import ChatReply, Message, chat, user
from benchmarks.model import BenchModel, add_arguments, open_model
from benchmarks.plots import Chart
from benchmarks.report import publish
from benchmarks.rounds import median_ratio
from benchmarks.table import Row
from tests.live_server import LiveServer

_SIDE = 1344  # three slices of 448 each way
_CELL = 48  # pixels of one colour: a picture that compresses well
_NUM_SLICES = 10
_TURNS = {"first turn": _NUM_SLICES, "second turn": 0, "one slice changed": 2}  # slices each has to encode
_ANSWER = "There are many squares of different colours."
_TOKENS = 2


def draw(number: int) -> NDArray[np.uint8]:
    """[height, width, 3]: squares of random colours, other ones for every number."""
    generator = np.random.default_rng(number)
    cells = generator.integers(0, 256, (_SIDE // _CELL, _SIDE // _CELL, 3), dtype=np.uint8)
    return cells.repeat(_CELL, axis=0).repeat(_CELL, axis=1)


def change(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """One square within the middle slice in its negative colour."""
    changed = image.copy()
    middle = slice(_SIDE // 2, _SIDE // 2 + _CELL)
    changed[middle, middle] = 255 - changed[middle, middle]
    return changed


async def measure(base_url: str, rounds: int) -> dict[str, list[ChatReply]]:
    """Replies of each turn, round by round."""
    replies: dict[str, list[ChatReply]] = {name: [] for name in _TURNS}
    async with httpx.AsyncClient(base_url=base_url, timeout=1200) as client:
        for number in range(rounds):
            image = draw(number)
            question = f"{number}: what is in this picture?"
            first: list[Message] = [user(question, image)]
            then: list[Message] = [
                *first,
                {"role": "assistant", "content": _ANSWER},
                user("Which colours?"),
            ]
            changed: list[Message] = [user(question, change(image))]
            for name, messages in zip(_TURNS, (first, then, changed), strict=True):
                replies[name].append(await chat(client, messages, _TOKENS))
    return replies


def as_rows(replies: dict[str, list[ChatReply]]) -> list[Row]:
    """Medians, and the median share of the same round's first turn."""
    first = _ttfts(replies["first turn"])
    return [_row(name, replies[name], first) for name in _TURNS]


def _row(name: str, replies: Sequence[ChatReply], first: Sequence[float]) -> Row:
    image_s = statistics.median(reply.timings["image_ms"] / 1e3 for reply in replies)
    num_encoded = _TURNS[name]
    return {
        "turn": name,
        "TTFT s": statistics.median(_ttfts(replies)),
        "of the first": median_ratio(_ttfts(replies), first),
        "image s": image_s,
        "s a slice": image_s / num_encoded if num_encoded else "-",
        "prefill s": statistics.median(reply.timings["prefill_ms"] / 1e3 for reply in replies),
        "prompt tokens": statistics.median(reply.prompt_tokens for reply in replies),
        "cached tokens": statistics.median(
            reply.usage["prompt_tokens_details"]["cached_tokens"] for reply in replies
        ),
    }


def _ttfts(replies: Sequence[ChatReply]) -> list[float]:
    return [reply.times.ttft_s for reply in replies]


def run(model: BenchModel, rounds: int) -> list[Row]:
    settings = {"model_dir": model.directory, "weights": model.weights}
    with LiveServer(**settings, kv_cache_size="1GiB") as server:
        return as_rows(asyncio.run(measure(server.base_url, rounds)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    model = open_model(options)
    settings = {"model": model.label, "rounds": options.rounds}
    chart = Chart("Time to first token with a ten-slice image", "turn", ("TTFT s",), "seconds")
    publish(f"images_{model.label}", settings, run(model, options.rounds), chart)


if __name__ == "__main__":
    main()
