"""Owns weight compression by NNCF: which mode each part gets, and the bit-width table NNCF reports."""

import contextlib
import io
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import nncf
import openvino as ov
from nncf.common.logging.logger import NNCF_LOGGER_NAME

from convert.checkpoint_config import CheckpointConfig
from convert.errors import OptionError
from convert.parts import Part
from service.artifacts import WeightFormat

Int4Mode = Literal["int4_sym", "int4_asym"]
Settings = dict[str, str | int | float | bool | None]

_TABLE_TITLE = "Statistics of the bitwidth distribution"


@dataclass(frozen=True, slots=True)
class CompressionOptions:
    """How int4 is made; the defaults are those of OpenVINO's MiniCPM-V-2 notebook, without data.

    docs/decisions/0030-int4.md: what GPTQ gains.
    """

    int4_mode: Int4Mode = "int4_sym"
    int4_group_size: int = 64  # input channels that share a scale; -1: all of a row
    int4_ratio: float = 0.6  # share of the layers' weights in 4 bits, the rest in 8
    gptq: bool = False
    awq: bool = False
    scale_estimation: bool = False

    @property
    def needs_data(self) -> bool:
        """Whether calibration conversations are run through the model."""
        return self.gptq or self.awq or self.scale_estimation


@dataclass(frozen=True, slots=True)
class Compressed:
    """A graph with compressed weights and what is said of it in the manifest."""

    graph: ov.Model
    settings: Settings
    bit_widths: str  # NNCF's table


def check_options(options: CompressionOptions, config: CheckpointConfig) -> None:
    """Raise OptionError for options that NNCF would refuse halfway through an export."""
    if not 0.0 <= options.int4_ratio <= 1.0:
        raise OptionError(f"--int4-ratio is {options.int4_ratio}, it must lie in 0..1")
    size = options.int4_group_size
    if size == -1:
        return
    if size < 1:
        raise OptionError(f"--int4-group-size is {size}, it must be positive, or -1 for one scale per row")
    for name in ("hidden_size", "intermediate_size"):
        channels = getattr(config, name)
        if channels % size:
            raise OptionError(
                f"--int4-group-size {size} does not divide {name} = {channels} of this checkpoint: choose "
                "one that does, or -1 for one scale per row"
            )


def compress(
    graph: ov.Model,
    part: Part,
    stored: WeightFormat,
    options: CompressionOptions,
    calibration: list[dict[str, Any]] | None = None,
) -> Compressed:
    """Compress `graph`'s weights in place to int8 or int4 (`stored`).

    int8 is asymmetric per row for every matrix, table and convolution. int4 keeps in int8 the lm_head, and
    beyond `int4_ratio` the layers that lose most. `calibration`: inputs of the language model, where the
    options need data.
    """
    arguments = _arguments(part, stored, options)
    settings: Settings = dict(arguments)
    if stored == "int4" and options.needs_data:
        samples = calibration or []
        arguments["dataset"] = nncf.Dataset(samples)
        arguments["subset_size"] = settings["calibration_samples"] = len(samples)
    mode = nncf.CompressWeightsMode(arguments.pop("mode"))
    # NNCF draws its progress bars on stdout, which belongs to the results.
    with _bit_width_tables() as tables, contextlib.redirect_stdout(io.StringIO()):
        compressed = nncf.compress_weights(graph, mode=mode, **arguments)
    return Compressed(compressed, settings, "\n".join(tables))


def _arguments(part: Part, stored: WeightFormat, options: CompressionOptions) -> dict[str, Any]:
    if stored == "int8":
        return {"mode": "int8_asym"}
    assert (part, stored) == ("language_model", "int4")
    return {
        "mode": options.int4_mode,
        "group_size": options.int4_group_size,
        "ratio": options.int4_ratio,
        "gptq": options.gptq,
        "awq": options.awq,
        "scale_estimation": options.scale_estimation,
    }


@contextlib.contextmanager
def _bit_width_tables() -> Iterator[list[str]]:
    """Collects the tables NNCF logs inside the block, which are the only place it tells them."""
    tables: list[str] = []
    handler = _TableHandler(tables)
    logger = logging.getLogger(NNCF_LOGGER_NAME)
    others = logger.handlers[:]
    logger.handlers[:] = [handler]
    try:
        yield tables
    finally:
        logger.handlers[:] = others


class _TableHandler(logging.Handler):
    def __init__(self, tables: list[str]) -> None:
        super().__init__(logging.INFO)
        self._tables = tables

    def emit(self, record: logging.LogRecord) -> None:
        title, _, table = record.getMessage().partition("\n")
        if title.startswith(_TABLE_TITLE):
            self._tables.append(table)


def save(graph: ov.Model, path: Path) -> None:
    """Write .xml and .bin; constants keep the types they have."""
    # False: rotary frequencies, norms and the position table must stay f32.
    ov.save_model(graph, path, compress_to_fp16=False)
