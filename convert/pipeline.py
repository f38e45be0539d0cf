"""Owns the order of an export: every part to f16, then compressed, then checked by a golden run, then named.

One part is in memory at a time; a large checkpoint's steps each get a process of their own.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from convert.apart import run_sized
from convert.checkpoint import TOKENIZER_NAME, Checkpoint
from convert.compress import CompressionOptions, check_options
from convert.errors import CheckpointError
from convert.golden import golden_tokens
from convert.manifest import make_manifest, make_variant, write_manifest
from convert.output import fresh_directory
from convert.parts import PARTS, Part, file_name, stored_format
from convert.progress import Steps, silent
from convert.steps import PartResult, compress_part, convert_part
from service.artifacts import WEIGHT_FORMATS, Manifest, Variant, WeightFormat
from service.prompt.tokenizer import SentencePieceTokenizer

Result = TypeVar("Result")

_BYTES_PER_WEIGHT: dict[WeightFormat, float] = {"fp16": 2.02, "int8": 1.02, "int4": 0.85}
_SMALL_FILES_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What to export and under which names."""

    model_id: str  # the name clients use
    source_id: str
    revision: str | None = None
    weights: tuple[WeightFormat, ...] = WEIGHT_FORMATS
    compression: CompressionOptions = field(default_factory=CompressionOptions)
    overwrite: bool = False


def export(
    checkpoint_directory: Path, output: Path, options: ExportOptions, steps: Steps | None = None
) -> Manifest:
    """Write tokenizer, graphs and manifest of every asked variant to `output`, whole or not at all.

    Raises CheckpointError, OptionError or OutputError.
    """
    checkpoint = Checkpoint(checkpoint_directory)
    check_options(options.compression, checkpoint.config)
    check_tokenizer(checkpoint)
    needed = needed_bytes(checkpoint, options.weights)
    with fresh_directory(output, overwrite=options.overwrite, needed_bytes=needed) as directory:
        shutil.copyfile(checkpoint.tokenizer_path, directory / TOKENIZER_NAME)
        export_run = _Export(checkpoint, directory, options, steps or silent())
        return export_run.run()


def check_tokenizer(checkpoint: Checkpoint) -> None:
    """Raise CheckpointError where the tokenizer is missing or could give ids the model has no row for."""
    config = checkpoint.config.model_config()
    tokenizer = SentencePieceTokenizer(checkpoint.tokenizer_path, config.token_ids)
    if tokenizer.vocab_size > config.vocab_size:
        raise CheckpointError(
            f"{TOKENIZER_NAME} has {tokenizer.vocab_size} pieces but the model {config.vocab_size}: it "
            "belongs to another checkpoint"
        )


def needed_bytes(checkpoint: Checkpoint, weights: tuple[WeightFormat, ...]) -> int:
    """Disk the export takes at its fullest: the f16 graphs are always made, as the others' source."""
    formats = {(stored_format(part, w), part) for part in PARTS for w in ("fp16", *weights)}
    prefixes = {"image_encoder": ("vpm.", "resampler."), "text_embeddings": ("llm.model.embed_tokens.",)}
    counts = {part: sum(map(checkpoint.num_parameters, prefixes.get(part, ()))) for part in PARTS}
    counts["language_model"] = checkpoint.num_parameters() - sum(counts.values())
    total = sum(_BYTES_PER_WEIGHT[stored] * counts[part] for stored, part in formats)
    return int(total) + _SMALL_FILES_BYTES


class _Export:
    """One export into a directory that is not yet in place."""

    def __init__(self, checkpoint: Checkpoint, directory: Path, options: ExportOptions, steps: Steps) -> None:
        self._checkpoint = checkpoint
        self._directory = directory
        self._options = options
        self._steps = steps

    def run(self) -> Manifest:
        with self._steps.counted("reading the checkpoint", self._checkpoint.num_bytes) as on_bytes:
            source = self._checkpoint.source(self._options.source_id, self._options.revision, on_bytes)
        results = self._convert_parts() | self._compress_parts()
        self._drop_unused()
        variants = {weights: self._finish_variant(weights, results) for weights in self._weights}
        size = sum(path.stat().st_size for path in self._directory.iterdir())
        with self._steps.counted("hashing the files", size) as on_bytes:
            manifest = make_manifest(
                self._directory,
                self._options.model_id,
                source,
                self._checkpoint.config.model_config(),
                TOKENIZER_NAME,
                variants,
                on_bytes,
            )
        write_manifest(self._directory, manifest)
        return manifest

    @property
    def _weights(self) -> tuple[WeightFormat, ...]:
        return tuple(weights for weights in WEIGHT_FORMATS if weights in self._options.weights)

    def _path(self, part: Part, stored: WeightFormat) -> Path:
        return self._directory / file_name(part, stored)

    def _convert_parts(self) -> dict[tuple[Part, WeightFormat], PartResult]:
        results: dict[tuple[Part, WeightFormat], PartResult] = {}
        for part in PARTS:
            with self._steps.step(f"{part} to f16"):
                path = self._path(part, "fp16")
                results[part, "fp16"] = self._call(convert_part, self._checkpoint.directory, part, path)
        return results

    def _compress_parts(self) -> dict[tuple[Part, WeightFormat], PartResult]:
        results: dict[tuple[Part, WeightFormat], PartResult] = {}
        wanted = {(part, stored_format(part, weights)) for part in PARTS for weights in self._weights}
        sources = {part: self._path(part, "fp16") for part in PARTS}
        for part, stored in sorted(wanted):
            if stored == "fp16":
                continue
            with self._steps.step(f"{part} to {stored}"):
                results[part, stored] = self._call(
                    compress_part,
                    self._checkpoint.directory,
                    part,
                    stored,
                    self._options.compression,
                    sources,
                    self._path(part, stored),
                )
        return results

    def _drop_unused(self) -> None:
        """The f16 graphs were only a source where no variant uses them."""
        if "fp16" in self._weights:
            return
        for part in PARTS:
            for suffix in (".xml", ".bin"):
                self._path(part, "fp16").with_suffix(suffix).unlink()

    def _finish_variant(
        self, weights: WeightFormat, results: dict[tuple[Part, WeightFormat], PartResult]
    ) -> Variant:
        with self._steps.step(f"golden tokens of {weights}"):
            paths = (self._path(part, stored_format(part, weights)) for part in PARTS)
            tokens = self._call(
                golden_tokens,
                self._checkpoint.config.model_config(),
                self._directory / TOKENIZER_NAME,
                *paths,
            )
        return make_variant(weights, results, tokens)

    def _call(self, function: Callable[..., Result], *arguments: object) -> Result:
        return run_sized(self._checkpoint.num_bytes, function, *arguments)
