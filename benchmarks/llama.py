"""The engine against llama.cpp (llama-cpp-python), one stream: same shape, random weights, int4 and int8.

    python -m benchmarks.llama                      # needs the packages of the `bench` extra

int4 (60 % of the layers' weights in 4 bits, the rest and the lm_head in 8) stands against Q4_0 (all in 4, the
lm_head in 6), int8 against Q8_0; the bytes of each are in the table. Both have the cores, the prompts and the
batch of a prefill in common, and their own defaults for the rest, keys and values among it (ours 8 bits,
llama.cpp's 16).
"""

import argparse
import statistics
from pathlib import Path

from benchmarks.gguf_model import GgufFormat
from benchmarks.llama_peer import LlamaPeer
from benchmarks.load import Load
from benchmarks.model import BenchModel, add_arguments, open_model
from benchmarks.plots import Chart
from benchmarks.report import publish
from benchmarks.rounds import median_ratio
from benchmarks.service_engine import ServiceEngine
from benchmarks.streams import decode_tokens_per_s, mean_ttft_s
from benchmarks.table import Row
from service.artifacts import WeightFormat

LOAD = Load(1, 512, 48, 5)
PAIRS: dict[WeightFormat, GgufFormat] = {"int4": "Q4_0", "int8": "Q8_0"}
_MIB = 1 << 20


def measure(model: BenchModel, models: Path) -> Row:
    """Medians of tokens/s, and of their ratios in each round; above 1 ours is faster."""
    weights = PAIRS[model.weights]
    peer = LlamaPeer(model, models, weights)
    with ServiceEngine(model, max_num_seqs=1) as engine:
        runs = LOAD.alternate(model.manifest.model.vocab_size, {"engine": engine.run, "llama": peer.run})
    peer.close()
    decode = {name: [decode_tokens_per_s(streams) for streams in sides] for name, sides in runs.items()}
    prefill = {
        name: [LOAD.prompt_tokens / mean_ttft_s(streams) for streams in sides] for name, sides in runs.items()
    }
    return {
        "weights": f"{model.weights} / {weights}",
        "engine prefill tokens/s": statistics.median(prefill["engine"]),
        "llama.cpp prefill tokens/s": statistics.median(prefill["llama"]),
        "prefill ratio": median_ratio(prefill["engine"], prefill["llama"]),
        "engine decode tokens/s": statistics.median(decode["engine"]),
        "llama.cpp decode tokens/s": statistics.median(decode["llama"]),
        "decode ratio": median_ratio(decode["engine"], decode["llama"]),
        "engine MiB": _engine_bytes(model) // _MIB,
        "llama.cpp MiB": peer.path.stat().st_size // _MIB,
    }


def _engine_bytes(model: BenchModel) -> int:
    files = (model.language_model, model.text_embeddings)
    return sum(path.with_suffix(".bin").stat().st_size for path in files)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser, choose_weights=False)
    parser.add_argument("--only", choices=list(PAIRS), action="append", help="default: both")
    options = parser.parse_args()
    models = [open_model(options, weights) for weights in options.only or PAIRS]
    rows = [measure(model, options.models) for model in models]
    name = models[0].manifest.model_id.rpartition("/")[2]
    chart = Chart(
        "Engine against llama.cpp",
        "weights",
        ("prefill ratio", "decode ratio"),
        "ratio of tokens/s",
        ("equal", 1),
    )
    publish(f"llama_{name}", {"model": name, "load": str(LOAD)}, rows, chart)


if __name__ == "__main__":
    main()
