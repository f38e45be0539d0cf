"""Owns making and writing manifest.json: what was exported, from what, and the hash of every file."""

import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path

from convert.errors import OutputError
from convert.parts import PARTS, Part, file_name, stored_format
from convert.requests import GOLDEN
from convert.steps import PartResult
from service.artifacts import (
    MANIFEST_NAME,
    FileRecord,
    Manifest,
    ModelConfig,
    Source,
    Variant,
    WeightFormat,
    hash_file,
)

_PACKAGES = ("openvino", "nncf", "torch", "timm", "transformers", "safetensors", "sentencepiece", "pillow")


def make_variant(
    weights: WeightFormat,
    results: Mapping[tuple[Part, WeightFormat], PartResult],
    golden_tokens: tuple[int, ...],
) -> Variant:
    """The manifest's record of one variant, from what its parts' steps returned."""
    stored = {part: stored_format(part, weights) for part in PARTS}
    parts = {part: results[part, stored[part]] for part in PARTS}
    return Variant(
        image_encoder=file_name("image_encoder", stored["image_encoder"]),
        text_embeddings=file_name("text_embeddings", stored["text_embeddings"]),
        language_model=file_name("language_model", stored["language_model"]),
        compression={part: result.settings for part, result in parts.items()},
        bit_widths={part: result.bit_widths for part, result in parts.items() if result.bit_widths},
        golden_tokens=golden_tokens,
    )


def make_manifest(
    directory: Path,
    model_id: str,
    source: Source,
    model: ModelConfig,
    tokenizer: str,
    variants: dict[WeightFormat, Variant],
    on_bytes: Callable[[int], None] = lambda _: None,
) -> Manifest:
    """The manifest of the files in `directory`; hashes them all, telling `on_bytes` as it goes."""
    return Manifest(
        model_id=model_id,
        created=int(time.time()),
        source=source,
        model=model,
        tokenizer=tokenizer,
        variants=variants,
        golden=GOLDEN,
        files={
            path.name: FileRecord(sha256=hash_file(path, on_bytes), size_bytes=path.stat().st_size)
            for path in sorted(directory.iterdir())
            if path.name != MANIFEST_NAME
        },
        versions={name: version(name) for name in _PACKAGES},
    )


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Replace directory/manifest.json in one step; raises OutputError."""
    partial = directory / f".{MANIFEST_NAME}.partial"
    try:
        partial.write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
        partial.replace(directory / MANIFEST_NAME)
    except OSError as error:
        raise OutputError(f"cannot write {MANIFEST_NAME} in {directory} ({error.strerror})") from None
    finally:
        partial.unlink(missing_ok=True)
