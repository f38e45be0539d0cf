"""From the command to ready: without a cache directory, with an empty one, and with one that was filled.

    python -m benchmarks.start_time [--model-dir DIR] [--weights int4]

Ready means: files hashed, models compiled, golden answer compared, one request answered. A first start, not
counted, fills the cache directory and the page cache; then they take turns.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.model import BenchModel, add_arguments, open_model
from benchmarks.plots import Chart
from benchmarks.report import publish
from benchmarks.rounds import alternate
from benchmarks.table import Row
from tests.live_server import LiveServer


def seconds_to_ready(model: BenchModel, cache_dir: Path | None) -> float:
    """Of one start in a process of its own, its interpreter's start included."""
    cache = {} if cache_dir is None else {"cache_dir": cache_dir}
    start_s = time.perf_counter()
    with LiveServer(model_dir=model.directory, weights=model.weights, kv_cache_size="256MiB", **cache):
        return time.perf_counter() - start_s


def run(model: BenchModel, rounds: int) -> list[Row]:
    """Medians over the rounds."""
    with tempfile.TemporaryDirectory() as directory:
        filled = Path(directory) / "filled"
        filled.mkdir()
        seconds_to_ready(model, filled)
        starts = alternate(
            rounds,
            {
                "none": lambda _: seconds_to_ready(model, None),
                "empty": lambda number: seconds_to_ready(model, _made(Path(directory) / f"empty-{number}")),
                "filled": lambda _: seconds_to_ready(model, filled),
            },
        )
    return [{"cache directory": name, "ready s": statistics.median(times)} for name, times in starts.items()]


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    model = open_model(options)
    settings = {"model": model.label, "rounds": options.rounds}
    chart = Chart(f"From command to ready, {model.label}", "cache directory", ("ready s",), "seconds")
    publish(f"start_time_{model.label}", settings, run(model, options.rounds), chart)


if __name__ == "__main__":
    main()
