"""The engine against openvino.genai's continuous batching: same weights, prompts, lengths, in one run.

    python -m benchmarks.genai [--weights int4] [--as-exported]     # needs the packages of the `bench` extra

All streams are asked for at once. `equal` is the share of tokens both chose alike.
"""

import argparse
import statistics

from benchmarks.genai_peer import GenaiPeer
from benchmarks.load import Load
from benchmarks.model import BenchModel, add_arguments, open_model
from benchmarks.plots import Chart
from benchmarks.report import publish
from benchmarks.rounds import median_ratio
from benchmarks.service_engine import ServiceEngine
from benchmarks.streams import decode_tokens_per_s, equal_share, mean_ttft_s
from benchmarks.table import Row

# As much prefill in each but the last, and fewer tokens where a step takes longer.
LOADS = (Load(1, 256, 32, 9), Load(4, 64, 32, 9), Load(16, 32, 16, 7), Load(32, 32, 16, 5))


def measure(engine: ServiceEngine, peer: GenaiPeer, vocab_size: int, load: Load) -> Row:
    """Medians of tokens/s and times to first token, and of each round's ratios; above 1 ours is better."""
    runs = load.alternate(vocab_size, {"engine": engine.run, "genai": peer.run})
    decode = {name: [decode_tokens_per_s(streams) for streams in sides] for name, sides in runs.items()}
    ttft = {name: [mean_ttft_s(streams) for streams in sides] for name, sides in runs.items()}
    return {
        "streams": load.streams,
        "engine tokens/s": statistics.median(decode["engine"]),
        "genai tokens/s": statistics.median(decode["genai"]),
        "decode: engine / genai": median_ratio(decode["engine"], decode["genai"]),
        "engine TTFT s": statistics.median(ttft["engine"]),
        "genai TTFT s": statistics.median(ttft["genai"]),
        "TTFT: genai / engine": median_ratio(ttft["genai"], ttft["engine"]),
        "equal": statistics.fmean(map(equal_share, runs["engine"], runs["genai"])),
    }


def run(model: BenchModel, options: argparse.Namespace) -> list[Row]:
    streams = max(load.streams for load in LOADS)
    peer = GenaiPeer(model, options.models, streams, as_exported=options.as_exported)
    with ServiceEngine(model, streams) as engine:
        return [measure(engine, peer, model.manifest.model.vocab_size, load) for load in LOADS]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument(
        "--as-exported",
        action="store_true",
        help="give genai the graph as it is, with the division behind the lm_head that hides it from genai, "
        "and its own default of how activations are rounded",
    )
    options = parser.parse_args()
    model = open_model(options)
    name = f"genai_{model.label}{'_as_exported' if options.as_exported else ''}"
    settings = {
        "model": model.label,
        "graph and rounding of genai": "as exported" if options.as_exported else "the engine's",
        "loads": list(map(str, LOADS)),
    }
    bars = ("decode: engine / genai", "TTFT: genai / engine")
    chart = Chart(f"Engine against openvino.genai, {model.label}", "streams", bars, "ratio", ("equal", 1))
    publish(name, settings, run(model, options), chart)


if __name__ == "__main__":
    main()
