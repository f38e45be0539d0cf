"""The contract between convert/ and service/: what manifest.json says, and whether the files match it.

Knows nothing of tensors or devices. convert/ writes these types, service/ reads them.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.errors import ArtifactError

MANIFEST_NAME = "manifest.json"
FORMAT_VERSION = 1

WeightFormat = Literal["fp16", "int8", "int4"]
WEIGHT_FORMATS: tuple[WeightFormat, ...] = ("fp16", "int8", "int4")

_HASH_CHUNK_BYTES = 1 << 22
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(_Record):
    """Where the checkpoint came from."""

    id: str  # hub id, or the directory's name (never its path)
    revision: str | None  # hub commit, None for a directory
    digest: Sha256  # sha256 over the safetensors files' hashes, in name order


class TokenIds(_Record):
    """Ids of the tokens that mean more than their text."""

    bos: int = 1
    eos: int = 2
    pad: int = 0  # = <unk>; also stands in image slots
    image_start: int = 101
    image_end: int = 102
    ref_start: int = 103
    ref_end: int = 104
    box_start: int = 105
    box_end: int = 106
    quad_start: int = 107
    quad_end: int = 108
    point_start: int = 109
    point_end: int = 110
    slice_start: int = 111
    slice_end: int = 112


class ImageConfig(_Record):
    """How images become slots of the prompt."""

    scale_resolution: int  # side in pixels of the square whose area a slice aims at
    patch_size: int
    max_slice_nums: int
    query_num: int  # slots per image or slice
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)


class ModelConfig(_Record):
    """What the service must know of the model."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    max_position_embeddings: int
    token_ids: TokenIds
    image: ImageConfig


class PartReport(_Record):
    """How one IR of one variant differs from torch over the verification inputs."""

    max_error: float  # largest absolute difference of the outputs (embeddings or logits)
    mean_error: float


class VerificationReport(_Record):
    """What `python -m convert verify` measured for one variant, against torch in f32."""

    image_encoder: PartReport
    text_embeddings: PartReport
    language_model: PartReport
    kl_divergence: float  # mean KL(torch || IR) of the next-token distribution, nats
    identical_greedy_tokens: float  # share in [0, 1]
    num_images: int
    num_positions: int


class Variant(_Record):
    """One weight format: which files it uses and how they were compressed."""

    image_encoder: str  # .xml file names, relative to the manifest
    text_embeddings: str
    language_model: str
    compression: dict[str, dict[str, str | int | float | bool | None]]  # per part: mode, group_size, ratio, …
    bit_widths: dict[str, str] = {}  # per part: the table NNCF printed
    golden_tokens: tuple[int, ...]  # greedy answer to Golden, f32 inference, stateful run
    verification: VerificationReport | None = None

    @property
    def weight_group_size(self) -> int | None:
        """Input channels that share a scale in the language model's matrices; None: all of a row."""
        size = self.compression["language_model"].get("group_size")
        return size if isinstance(size, int) and size > 0 else None


class Golden(_Record):
    """The fixed request whose greedy tokens every start can be compared with."""

    prompt: str
    image: Literal["test_card"]  # service.vision.test_card
    max_tokens: int


class FileRecord(_Record):
    sha256: Sha256
    size_bytes: int


class Manifest(_Record):
    """manifest.json."""

    format_version: Literal[1] = 1
    model_id: str  # the name clients use, e.g. "openbmb/MiniCPM-V-2"
    created: int  # unix seconds
    source: Source
    model: ModelConfig
    tokenizer: str  # sentencepiece .model file name
    variants: dict[WeightFormat, Variant]
    golden: Golden
    files: dict[str, FileRecord]  # every file of the directory but the manifest
    versions: dict[str, str]  # openvino, nncf, torch, …

    def variant_files(self, weights: WeightFormat) -> tuple[str, ...]:
        """Names of all files the variant needs: tokenizer, .xml and .bin."""
        variant = self.variants[weights]
        xml = (variant.image_encoder, variant.text_embeddings, variant.language_model)
        return (self.tokenizer, *xml, *(str(Path(name).with_suffix(".bin")) for name in xml))


def read_manifest(directory: Path) -> Manifest:
    """Parse directory/manifest.json; raises ArtifactError with the fix in one line."""
    path = directory / MANIFEST_NAME
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise ArtifactError(
            f"no readable {MANIFEST_NAME} in {directory}: point MINICPMV_MODEL_DIR at a directory "
            "written by `python -m convert export`"
        ) from None
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ArtifactError(
            f"{path} is not a manifest of format {FORMAT_VERSION} ({where}: {first['msg']}): export again"
        ) from None


def check_files(
    directory: Path,
    manifest: Manifest,
    weights: WeightFormat,
    on_bytes: Callable[[int], None] = lambda _: None,
) -> None:
    """Compare size and sha256 of every file the variant needs with the manifest.

    `on_bytes` hears how many bytes were hashed since its last call. Raises ArtifactError for the first
    variant, file or hash that is missing or differs.
    """
    if weights not in manifest.variants:
        have = ", ".join(manifest.variants)
        raise ArtifactError(
            f"the model directory has no {weights} variant (it has: {have}): set MINICPMV_WEIGHTS"
        )
    for name in manifest.variant_files(weights):
        _check_file(directory / name, manifest.files.get(name), on_bytes)


def _check_file(path: Path, expected: FileRecord | None, on_bytes: Callable[[int], None]) -> None:
    if expected is None:
        raise ArtifactError(f"{path.name} is not listed in {MANIFEST_NAME}: export again")
    if not path.is_file():
        raise ArtifactError(f"{path.name} is missing from {path.parent}: export again")
    if path.stat().st_size != expected.size_bytes:
        raise ArtifactError(f"{path.name} has not the size {MANIFEST_NAME} names: copy or export it again")
    if hash_file(path, on_bytes) != expected.sha256:
        raise ArtifactError(
            f"{path.name} was altered (sha256 differs from {MANIFEST_NAME}): copy or export it again"
        )


def hash_file(path: Path, on_bytes: Callable[[int], None] = lambda _: None) -> str:
    """sha256 of a file as lower-case hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_HASH_CHUNK_BYTES):
            digest.update(chunk)
            on_bytes(len(chunk))
    return digest.hexdigest()
