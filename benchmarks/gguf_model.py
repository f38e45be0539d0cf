"""Writes a GGUF file of a model's shape with random quantised weights; knows nothing of how it is run."""

import math
from pathlib import Path
from typing import Literal

import gguf
import numpy as np
from numpy.typing import NDArray

from service.artifacts import ModelConfig

GgufFormat = Literal["Q4_0", "Q8_0"]

_ARCHITECTURE = "minicpm"
_RMS_EPS = 1e-5
_INNER_SIZES = {2304: 5760}  # hidden -> intermediate size, which a manifest does not tell


def inner_size(config: ModelConfig) -> int:
    """The published intermediate size, or its proportion."""
    return _INNER_SIZES.get(config.hidden_size, config.hidden_size * 5 // 2)


def write_gguf(path: Path, config: ModelConfig, weights: GgufFormat) -> None:
    """Matrices in `weights`; the lm_head of Q4_0 in Q6_K, as llama-quantize makes it; norms in f32."""
    partial = path.with_suffix(".partial")
    writer = gguf.GGUFWriter(partial, _ARCHITECTURE)
    _add_sizes(writer, config)
    generator = np.random.default_rng(0)
    matrices = gguf.GGMLQuantizationType[weights]
    head = gguf.GGMLQuantizationType.Q6_K if weights == "Q4_0" else matrices
    for name, (rows, columns) in _matrices(config).items():
        kind = head if name == "output" else matrices
        writer.add_tensor(f"{name}.weight", _random(generator, rows, columns, kind), raw_dtype=kind)
    for name in _norms(config):
        writer.add_tensor(f"{name}.weight", np.ones(config.hidden_size, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.rename(path)


def _add_sizes(writer: gguf.GGUFWriter, config: ModelConfig) -> None:
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(inner_size(config))
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_layer_norm_rms_eps(_RMS_EPS)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("none")


def _matrices(config: ModelConfig) -> dict[str, tuple[int, int]]:
    hidden, inner = config.hidden_size, inner_size(config)
    kv = config.num_key_value_heads * config.head_dim
    layer = {
        "attn_q": (hidden, hidden),
        "attn_k": (kv, hidden),
        "attn_v": (kv, hidden),
        "attn_output": (hidden, hidden),
        "ffn_gate": (inner, hidden),
        "ffn_up": (inner, hidden),
        "ffn_down": (hidden, inner),
    }
    vocabulary = (config.vocab_size, hidden)
    layers = range(config.num_hidden_layers)
    return {"token_embd": vocabulary, "output": vocabulary} | {
        f"blk.{number}.{name}": shape for number in layers for name, shape in layer.items()
    }


def _norms(config: ModelConfig) -> list[str]:
    layers = range(config.num_hidden_layers)
    return ["output_norm", *(f"blk.{n}.{kind}" for n in layers for kind in ("attn_norm", "ffn_norm"))]


def _random(
    generator: np.random.Generator, rows: int, columns: int, kind: gguf.GGMLQuantizationType
) -> NDArray[np.uint8]:
    """[rows, bytes of a row]: random quants under one scale, which gives a spread of 1 / sqrt(columns).

    A block, in ggml-common.h: Q4_0 is f16 scale, 16 x 2 quants of -8..7; Q8_0 is f16 scale, 32 quants of
    -128..127; Q6_K is 192 bytes of 256 quants of -32..31, 16 scales of 8 bits, f16 scale of those.
    """
    values, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = generator.integers(0, 256, (rows, columns // values, size), dtype=np.uint8)
    is_k = kind == gguf.GGMLQuantizationType.Q6_K
    levels = {"Q4_0": 16, "Q8_0": 256, "Q6_K": 64}[kind.name]
    scale = math.sqrt(12 / columns) / levels  # uniform over n levels: a spread of n / sqrt(12)
    scale_bytes = np.array([scale / (16 if is_k else 1)], dtype=np.float16).view(np.uint8)
    if is_k:
        blocks[..., 192:208] = 16
        blocks[..., 208:] = scale_bytes
    else:
        blocks[..., :2] = scale_bytes
    return blocks.reshape(rows, -1)
