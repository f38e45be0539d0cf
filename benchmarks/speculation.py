"""What guessed tokens gain where an answer repeats itself: tokens per second with and without, in turns.

    python -m benchmarks.speculation [--model-dir DIR] [--weights int8] [--guessed 6] [--rounds 5]

Two services run side by side, one of which guesses; only one is asked at a time. The answer goes on past its
end, where a small model soon says the same again and again: the best case. What it costs where nothing comes
true is bounded by the guesses' lengths (docs/decisions/0025-speculation.md) and not shown here.
"""

import argparse
import re
import statistics
import time
from pathlib import Path

import httpx

from benchmarks.report import write_result
from benchmarks.table import Row, as_text
from tests.live_server import LiveServer


def tokens_per_second(server: LiveServer, number: int, tokens: int) -> float:
    body = {
        "messages": [{"role": "user", "content": f"Tell me story number {number}."}],
        "max_tokens": tokens,
        "ignore_eos": True,
        "temperature": 0,
    }
    start = time.perf_counter()
    reply = httpx.post(f"{server.base_url}/v1/chat/completions", json=body, timeout=3600)
    seconds = time.perf_counter() - start
    assert reply.json()["usage"]["completion_tokens"] == tokens, "the answer is not as long as asked"
    return tokens / seconds


def measure(plain: LiveServer, guessing: LiveServer, tokens: int, rounds: int) -> Row:
    """Medians over the rounds, of the ratio too."""
    speeds = [
        (tokens_per_second(plain, number, tokens), tokens_per_second(guessing, number, tokens))
        for number in range(rounds + 1)
    ][1:]  # the first one warms up
    return {
        "plain tokens/s": statistics.median(a for a, _ in speeds),
        "guessing tokens/s": statistics.median(b for _, b in speeds),
        "ratio": statistics.median(b / a for a, b in speeds),
    }


def accepted_share(log: str) -> float:
    """Of the guessed tokens, as the service logs it when it stops."""
    counts = re.search(r"speculation: (\d+) of (\d+) guessed tokens accepted", log)
    return round(int(counts[1]) / int(counts[2]), 3) if counts is not None else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model-dir", type=Path, help="default: the embedded model")
    parser.add_argument("--weights", default="int8", choices=["fp16", "int8", "int4"])
    parser.add_argument("--guessed", type=int, default=6, help="tokens in one step at most")
    parser.add_argument("--tokens", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    model = {"model_dir": options.model_dir} if options.model_dir else {}
    guess = {"num_speculative_tokens": options.guessed}
    with (
        LiveServer(weights=options.weights, **model) as plain,
        LiveServer(weights=options.weights, **guess, **model) as guessing,
    ):
        row = measure(plain, guessing, options.tokens, options.rounds)
        row["of the guesses accepted"] = accepted_share(guessing.stop())
    print(as_text([row]))
    settings = vars(options) | {"model_dir": options.model_dir.name if options.model_dir else "embedded"}
    print(f"written to {write_result('speculation', settings, {'rows': [row]}).name}")


if __name__ == "__main__":
    main()
