"""The simple way, one request at a time through a stateful loop, against the engine, for one user and more.

    python -m benchmarks.one_by_one [--weights int4]

The loop computes logits for every position of a prompt, as the graph on disk does.
"""

import argparse
import statistics

from benchmarks.load import Load
from benchmarks.model import BenchModel, add_arguments, open_model
from benchmarks.plots import Chart
from benchmarks.report import publish
from benchmarks.rounds import median_ratio
from benchmarks.service_engine import ServiceEngine
from benchmarks.stateful_loop import StatefulLoop
from benchmarks.streams import mean_ttft_s, wall_s
from benchmarks.table import Row

LOADS = (Load(1, 128, 32, 5), Load(8, 128, 32, 3))


def measure(engine: ServiceEngine, loop: StatefulLoop, vocab_size: int, load: Load) -> Row:
    """Medians of the time until everybody is answered and of the mean time to first token, and the ratios."""
    runs = load.alternate(vocab_size, {"loop": loop.run, "engine": engine.run})
    walls = {name: [wall_s(streams) for streams in sides] for name, sides in runs.items()}
    ttft = {name: [mean_ttft_s(streams) for streams in sides] for name, sides in runs.items()}
    return {
        "users": load.streams,
        "one by one s": statistics.median(walls["loop"]),
        "engine s": statistics.median(walls["engine"]),
        "times as fast": median_ratio(walls["loop"], walls["engine"]),
        "one by one TTFT s": statistics.median(ttft["loop"]),
        "engine TTFT s": statistics.median(ttft["engine"]),
        "TTFT ratio": median_ratio(ttft["loop"], ttft["engine"]),
    }


def run(model: BenchModel) -> list[Row]:
    loop = StatefulLoop(model)
    with ServiceEngine(model) as engine:
        return [measure(engine, loop, model.manifest.model.vocab_size, load) for load in LOADS]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    model = open_model(parser.parse_args())
    settings = {"model": model.label, "loads": list(map(str, LOADS))}
    bars = ("one by one s", "engine s")
    chart = Chart("Until everybody has an answer of 32 tokens", "users", bars, "seconds")
    publish(f"one_by_one_{model.label}", settings, run(model), chart)


if __name__ == "__main__":
    main()
