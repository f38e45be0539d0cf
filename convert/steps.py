"""Owns the heavy steps of an export, each a function of files that leaves nothing in memory."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import torch

from convert import image_encoder, language_model, text_embeddings
from convert.calibration import calibration_requests
from convert.checkpoint import Checkpoint
from convert.compress import CompressionOptions, Settings, compress, save
from convert.parts import Part
from convert.requests import Embeddings
from convert.variant_run import ImageEncoderRun, TextEmbeddingsRun
from convert.weight_cast import WeightCast
from service.artifacts import WeightFormat
from service.mapped_pages import pages_returned
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
    sources: Mapping[Part, Path],
    path: Path,
) -> PartResult:
    """Compress a part's f16 graph (mapped, not copied; `sources` has all parts') and write it to `path`."""
    calibration = None
    with pages_returned(path.parent):
        if stored == "int4" and options.needs_data:
            calibration = calibration_inputs(Checkpoint(checkpoint_directory), sources)
        result = compress(ov.Core().read_model(sources[part]), part, stored, options, calibration)
        save(result.graph, path)
    return PartResult(result.settings, result.bit_widths)


def calibration_inputs(checkpoint: Checkpoint, sources: Mapping[Part, Path]) -> list[dict[str, Any]]:
    """The built-in conversations as inputs of the language model, computed by the other parts' f16 graphs."""
    config = checkpoint.config.model_config()
    tokenizer = SentencePieceTokenizer(checkpoint.tokenizer_path, config.token_ids)
    embed_text = TextEmbeddingsRun(sources["text_embeddings"])
    encode_image = ImageEncoderRun(sources["image_encoder"])
    return [
        _language_inputs(request.embed(embed_text, encode_image))
        for request in calibration_requests(config, tokenizer)
    ]


def _language_inputs(embeds: Embeddings) -> dict[str, Any]:
    length = embeds.shape[1]
    return {
        "inputs_embeds": embeds,
        "attention_mask": np.ones((1, length), dtype=np.int64),
        "position_ids": np.arange(length, dtype=np.int64)[None],
        "beam_idx": np.zeros(1, dtype=np.int32),
    }
