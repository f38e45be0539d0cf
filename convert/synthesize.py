"""Owns making a random checkpoint in the published layout; nothing of it was ever trained.

Weights are drawn so that activations keep a spread of about one, and each tensor from its own seed, so files
are the same whatever the order or the number of shards. Written tensor by tensor: memory stays small.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import torch

from convert.checkpoint import CONFIG_NAME, INDEX_NAME, SINGLE_NAME, TOKENIZER_NAME
from convert.checkpoint_config import CheckpointConfig, parse_config
from convert.output import fresh_directory
from convert.presets import Preset, num_weights, preset_config
from convert.tensor_table import expected_shapes
from convert.vocabulary import train_vocabulary

_BYTES_PER_WEIGHT = 2  # bf16
_CHUNK_WEIGHTS = 1 << 24
_LOGIT_SPREAD = 2.5  # standard deviation of the logits: neither a flat nor a one-sided distribution
_TEXT_SPREAD = 0.5  # of text rows, after scale_emb: less than a layer adds, or every answer echoes itself
# Attention must look somewhere for an answer to depend on the image: uniform attention averages it away.
_GAINS = {"q_proj": 2.0, "k_proj": 1.5, "o_proj": 2.0}


def synthesize(
    output: Path,
    preset: Preset = "tiny",
    seed: int = 0,
    *,
    overwrite: bool = False,
    max_shard_bytes: int = 5 << 30,
    on_bytes: Callable[[int], None] = lambda _: None,
) -> None:
    """Write config.json, tokenizer files and bf16 safetensors; `on_bytes` hears of every write.

    More than one shard gets an index, as the published checkpoint has. Raises OutputError.
    """
    raw = preset_config(preset)
    config = parse_config(raw)
    needed = num_weights(preset) * _BYTES_PER_WEIGHT + (64 << 20)
    with fresh_directory(output, overwrite=overwrite, needed_bytes=needed) as directory:
        _write_json(directory / CONFIG_NAME, raw)
        (directory / TOKENIZER_NAME).write_bytes(train_vocabulary(config.vocab_size))
        _write_json(directory / "tokenizer_config.json", tokenizer_config())
        _write_weights(directory, config, seed, max_shard_bytes, on_bytes)


def _write_weights(
    directory: Path,
    config: CheckpointConfig,
    seed: int,
    max_shard_bytes: int,
    on_bytes: Callable[[int], None],
) -> None:
    shards = _shards(expected_shapes(config), max_shard_bytes)
    names = (
        [SINGLE_NAME]
        if len(shards) == 1
        else [f"model-{n:05}-of-{len(shards):05}.safetensors" for n in range(1, len(shards) + 1)]
    )
    for name, shapes in zip(names, shards, strict=True):
        with (directory / name).open("wb") as file:
            file.write(_safetensors_header(shapes))
            for tensor, shape in shapes.items():
                _write_tensor(file, tensor, shape, config, seed, on_bytes)
    if len(shards) > 1:
        weight_map = {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
        total = sum(math.prod(shape) for shard in shards for shape in shard.values()) * _BYTES_PER_WEIGHT
        _write_json(directory / INDEX_NAME, {"metadata": {"total_size": total}, "weight_map": weight_map})


def _shards(shapes: dict[str, tuple[int, ...]], max_bytes: int) -> list[dict[str, tuple[int, ...]]]:
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    filled = 0
    for name, shape in shapes.items():
        size = math.prod(shape) * _BYTES_PER_WEIGHT
        if shards[-1] and filled + size > max_bytes:
            shards.append({})
            filled = 0
        shards[-1][name] = shape
        filled += size
    return shards


def _safetensors_header(shapes: dict[str, tuple[int, ...]]) -> bytes:
    """Length and JSON of the safetensors format; offsets follow the order of `shapes`."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + math.prod(shape) * _BYTES_PER_WEIGHT
        entries[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _write_tensor(
    file: IO[bytes],
    name: str,
    shape: tuple[int, ...],
    config: CheckpointConfig,
    seed: int,
    on_bytes: Callable[[int], None],
) -> None:
    mean, spread = _distribution(name, shape, config)
    generator = torch.Generator().manual_seed(_tensor_seed(seed, name))
    for count in _chunks(math.prod(shape)):
        values = torch.empty(count).normal_(mean, spread, generator=generator).to(torch.bfloat16)
        file.write(values.view(torch.uint8).numpy().data)
        on_bytes(count * _BYTES_PER_WEIGHT)


def _distribution(name: str, shape: tuple[int, ...], config: CheckpointConfig) -> tuple[float, float]:
    """(mean, standard deviation) that keeps activations near a spread of one."""
    if name == "llm.lm_head.weight":
        return 0.0, _LOGIT_SPREAD * config.logits_scaling / math.sqrt(config.hidden_size)
    if name == "llm.model.embed_tokens.weight":
        return 0.0, _TEXT_SPREAD / config.scale_emb
    if name.endswith("pos_embed") or name == "resampler.query":
        return 0.0, 0.5
    if len(shape) == 1:
        is_norm_weight = name.endswith("weight")  # every other vector is a bias
        return (1.0, 0.05) if is_norm_weight else (0.0, 0.05)
    gain = next((gain for part, gain in _GAINS.items() if part in name), 1.0)
    return 0.0, gain / math.sqrt(math.prod(shape[1:]))


def _tensor_seed(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8], "little") >> 1


def _chunks(total: int) -> Iterator[int]:
    for begin in range(0, total, _CHUNK_WEIGHTS):
        yield min(_CHUNK_WEIGHTS, total - begin)


def tokenizer_config() -> dict[str, Any]:
    return {
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "<unk>",
        "unk_token": "<unk>",
        "tokenizer_class": "LlamaTokenizer",
    }


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
