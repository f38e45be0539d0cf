"""Owns which graph files a variant consists of; knows no contents."""

from typing import Literal

from service.artifacts import WeightFormat

Part = Literal["image_encoder", "text_embeddings", "language_model"]
PARTS: tuple[Part, ...] = ("image_encoder", "text_embeddings", "language_model")


def stored_format(part: Part, weights: WeightFormat) -> WeightFormat:
    """In what format a variant's part is stored: int4 pays off in the language model alone."""
    return "int8" if weights == "int4" and part != "language_model" else weights


def file_name(part: Part, stored: WeightFormat) -> str:
    """The .xml of a part; variants that store a part alike name the same file."""
    return f"{part}_{stored}.xml"
