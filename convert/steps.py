"""Owns the heavy steps of an export, each a function of files that leaves nothing in memory."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import torch

from convert import image_encoder, language_model, text_embeddings
from convert.calibration import CALIBRATION_TEXTS
from convert.checkpoint import Checkpoint
from convert.compress import CompressionOptions, Settings, compress, save
from convert.mapped_pages import pages_returned
from convert.parts import Part
from convert.variant_run import TextEmbeddingsRun
from convert.weight_cast import WeightCast
from service.artifacts import WeightFormat
from service.prompt.tokenizer import SentencePieceTokenizer


@dataclass(frozen=True, slots=True)
class PartResult:
    """What the manifest says of one written part."""

    settings: Settings
    bit_widths: str = ""


def convert_part(checkpoint_directory: Path, part: Part, path: Path) -> PartResult:
    """Write a part's graph with f16 matrices; norms, biases and tables of positions stay f32."""
    checkpoint = Checkpoint(checkpoint_directory)
    cast = WeightCast(torch.float16)
    graph, module = build_graph(checkpoint, part, cast)
    save(graph, path)
    del graph, module  # in this order: the graph points into the module's memory
    return PartResult({"mode": "fp16", "max_rounding": cast.max_rounding})


def build_graph(checkpoint: Checkpoint, part: Part, cast: WeightCast) -> tuple[ov.Model, torch.nn.Module]:
    """A part's graph and the module it shares memory with, which must outlive it."""
    if part == "image_encoder":
        encoder = image_encoder.build(checkpoint, cast)
        return image_encoder.to_openvino(encoder), encoder
    if part == "text_embeddings":
        table = text_embeddings.build(checkpoint, cast)
        return text_embeddings.to_openvino(table), table
    language = language_model.build(checkpoint, cast)
    return language_model.to_openvino(language, checkpoint.config), language


def compress_part(
    checkpoint_directory: Path,
    part: Part,
    stored: WeightFormat,
    options: CompressionOptions,
    source: Path,
    source_text_embeddings: Path,
    path: Path,
) -> PartResult:
    """Compress the f16 graph at `source` (mapped, not copied) and write it to `path`."""
    calibration = None
    if stored == "int4" and options.needs_data:
        calibration = calibration_inputs(Checkpoint(checkpoint_directory), source_text_embeddings)
    with pages_returned(source.parent):
        result = compress(ov.Core().read_model(source), part, stored, options, calibration)
        save(result.graph, path)
    return PartResult(result.settings, result.bit_widths)


def calibration_inputs(checkpoint: Checkpoint, text_embeddings_path: Path) -> list[dict[str, Any]]:
    """The built-in texts as inputs of the language model."""
    config = checkpoint.config.model_config()
    tokenizer = SentencePieceTokenizer(checkpoint.tokenizer_path, config.token_ids)
    embed = TextEmbeddingsRun(text_embeddings_path)
    return [
        _language_inputs(embed(np.array([[config.token_ids.bos, *tokenizer.encode_text(text)]])))
        for text in CALIBRATION_TEXTS
    ]


def _language_inputs(embeds: np.ndarray[Any, np.dtype[np.float32]]) -> dict[str, Any]:
    length = embeds.shape[1]
    return {
        "inputs_embeds": embeds,
        "attention_mask": np.ones((1, length), dtype=np.int64),
        "position_ids": np.arange(length, dtype=np.int64)[None],
        "beam_idx": np.zeros(1, dtype=np.int32),
    }
