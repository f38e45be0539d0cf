"""What the engine costs: decode speed against a bare loop over the same compiled graph.

    python -m benchmarks.engine_loop [--weights int4]

Both run greedy answers to the same prompts, in one process and in turn; the loop has a fixed batch, argmax
and nothing else. `equal` is the share of tokens both chose alike: keys and values rounded to 8 bits chunk by
chunk may tip a close choice.
"""

import argparse
import statistics

from benchmarks.load import Load
from benchmarks.model import BenchModel, add_arguments, open_model
from benchmarks.paged_loop import PagedLoop
from benchmarks.plots import Chart
from benchmarks.report import publish
from benchmarks.rounds import median_ratio
from benchmarks.service_engine import ServiceEngine
from benchmarks.streams import decode_tokens_per_s, equal_share
from benchmarks.table import Row

_AIM = 0.97


# Fewer tokens where a step takes longer: each load takes about a minute at real width on two cores.
LOADS = (Load(1, 32, 48, 9), Load(4, 32, 32, 9), Load(16, 16, 24, 9), Load(32, 16, 16, 9))


def measure(engine: ServiceEngine, loop: PagedLoop, vocab_size: int, load: Load) -> Row:
    """Medians of tokens/s, and of their ratio in each round."""
    runs = load.alternate(vocab_size, {"engine": engine.run, "loop": loop.run})
    ours = [decode_tokens_per_s(streams) for streams in runs["engine"]]
    bare = [decode_tokens_per_s(streams) for streams in runs["loop"]]
    return {
        "streams": load.streams,
        "engine tokens/s": statistics.median(ours),
        "bare loop tokens/s": statistics.median(bare),
        "engine / loop": median_ratio(ours, bare),
        "equal": statistics.fmean(map(equal_share, runs["engine"], runs["loop"])),
    }


def run(model: BenchModel) -> list[Row]:
    vocab_size = model.manifest.model.vocab_size
    with ServiceEngine(model) as engine:
        loop = PagedLoop(model, engine.language_model)
        return [measure(engine, loop, vocab_size, load) for load in LOADS]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    model = open_model(parser.parse_args())
    settings = {"model": model.label, "loads": list(map(str, LOADS))}
    chart = Chart(
        "Engine against a bare loop, decode",
        "streams",
        ("engine / loop",),
        "ratio of tokens/s",
        ("aim", _AIM),
    )
    publish(f"engine_loop_{model.label}", settings, run(model), chart)


if __name__ == "__main__":
    main()
