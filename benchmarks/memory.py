"""How much memory serving takes: after the start, a ten-slice image, a prompt that fills the KV cache.

    python -m benchmarks.memory --model-dir DIR [--weights int4] [--kv-tokens 4096]

Meant for the full shape: the head of benchmarks/README.md makes it. Peaks (VmHWM) are of the service's
process since its start, the pages of its weight files among them; beside them stands what is resident at that
moment.
"""

import argparse
import asyncio
from pathlib import Path

import httpx

from benchmarks.chat import chat, user
from benchmarks.images import draw
from benchmarks.model import BenchModel, add_arguments, open_model
from benchmarks.plots import Chart
from benchmarks.report import publish
from benchmarks.table import Row
from service.artifacts import ModelConfig
from tests.live_server import LiveServer

_GIB = 1 << 30
_SCALE_BYTES = 12  # beside each key and value of a head in 8 bits, on the CPU
_ANSWER_TOKENS = 16
_AIM_GIB = 4.0
_WORD = "Tell me more. "
_MARGIN_TOKENS = 64  # for the chat's own tokens


def kv_cache_bytes(model: ModelConfig, num_tokens: int) -> int:
    """Memory of the keys and values of so many tokens."""
    return (
        num_tokens * model.num_hidden_layers * model.num_key_value_heads * 2 * (model.head_dim + _SCALE_BYTES)
    )


def memory_gib(pid: int) -> dict[str, float]:
    """GiB by the kernel's names: VmHWM, VmRSS, RssAnon, RssFile."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    names = ("VmHWM", "VmRSS", "RssAnon", "RssFile")
    return {name: int(fields[name].split()[0]) * 1024 / _GIB for name in names}


async def _ask_about_image(base_url: str) -> int:
    async with httpx.AsyncClient(base_url=base_url, timeout=1800) as client:
        reply = await chat(client, [user("What is in this picture?", draw(0))], _ANSWER_TOKENS)
        return reply.prompt_tokens + _ANSWER_TOKENS


async def _fill(base_url: str, num_tokens: int) -> int:
    """One prompt that with its answer nearly takes `num_tokens`; -> how many it took."""
    async with httpx.AsyncClient(base_url=base_url, timeout=1800) as client:
        counted = await client.post("/tokenize", json={"prompt": _WORD * 100, "add_special_tokens": False})
        words = (num_tokens - _ANSWER_TOKENS - _MARGIN_TOKENS) * 100 // counted.json()["count"]
        reply = await chat(client, [user(_WORD * words)], _ANSWER_TOKENS)
        return reply.prompt_tokens + _ANSWER_TOKENS


def run(model: BenchModel, kv_tokens: int) -> list[Row]:
    """A row after each phase."""
    budget = kv_cache_bytes(model.manifest.model, kv_tokens)
    settings = {"model_dir": model.directory, "weights": model.weights, "kv_cache_size": budget}
    with LiveServer(**settings) as server:
        rows = [_row("start", 0, server)]
        rows.append(_row("image", asyncio.run(_ask_about_image(server.base_url)), server))
        rows.append(_row("full KV cache", asyncio.run(_fill(server.base_url, kv_tokens)), server))
        return rows


def _row(phase: str, num_tokens: int, server: LiveServer) -> Row:
    memory = memory_gib(server.process.pid)
    return {
        "after": phase,
        "tokens": num_tokens,
        "peak GiB": memory["VmHWM"],
        "resident GiB": memory["VmRSS"],
        "anonymous GiB": memory["RssAnon"],
        "files GiB": memory["RssFile"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument("--kv-tokens", type=int, default=4096)
    options = parser.parse_args()
    model = open_model(options)
    settings = {
        "model": model.label,
        "layers": model.manifest.model.num_hidden_layers,
        "KV cache tokens": options.kv_tokens,
        "KV cache bytes": kv_cache_bytes(model.manifest.model, options.kv_tokens),
    }
    bars = ("peak GiB", "anonymous GiB", "files GiB")
    chart = Chart(f"Memory of the service, {model.label}", "after", bars, "GiB", ("aim", _AIM_GIB))
    publish(f"memory_{model.label}", settings, run(model, options.kv_tokens), chart)


if __name__ == "__main__":
    main()
