"""Owns reading a checkpoint directory: config.json, safetensors, and every check of names and shapes.

Knows nothing of graphs or OpenVINO.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from convert.checkpoint_config import CheckpointConfig, parse_config
from convert.errors import CheckpointError
from convert.tensor_table import expected_shapes
from service.artifacts import Source, hash_file

CONFIG_NAME = "config.json"
INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"
TOKENIZER_NAME = "tokenizer.model"

_DTYPES = ("BF16", "F16", "F32")
_NAMES_SHOWN = 5
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where a tensor lies and how it is stored."""

    file: str
    shape: tuple[int, ...]
    dtype: str  # safetensors' name: BF16, F16, F32, …


class Checkpoint:
    """A checked directory of safetensors files; tensors are read one by one, never all at once."""

    def __init__(self, directory: Path) -> None:
        """Read and check all headers of `directory`; raises CheckpointError with the fault and the fix."""
        self.directory = directory
        self.config: CheckpointConfig = parse_config(_read_config(directory))
        self.files = _tensor_files(directory)  # file names, sorted
        self._stored = {name: stored for file in self.files for name, stored in _header(directory / file)}
        _check_names(self._stored.keys(), self.config)
        _check_each(self._stored, self.config)

    def tensor(self, name: str) -> torch.Tensor:
        """One tensor in its stored type, backed by a memory map of its file.

        The map lives as long as the tensor: who copies and drops it gives the pages back, which is what keeps
        an export's resident size near one copy of the weights.
        """
        with safe_open(self.directory / self._stored[name].file, framework="pt") as file:
            tensor: torch.Tensor = file.get_tensor(name)
        return tensor

    def tensors(self, prefix: str) -> Iterator[tuple[str, torch.Tensor]]:
        """(name without prefix, tensor) of every tensor whose name starts with `prefix`."""
        for name in sorted(self._stored):
            if name.startswith(prefix):
                yield name.removeprefix(prefix), self.tensor(name)

    def num_parameters(self, prefix: str = "") -> int:
        """Weights in all tensors whose name starts with `prefix`."""
        return sum(math.prod(t.shape) for name, t in self._stored.items() if name.startswith(prefix))

    @property
    def num_bytes(self) -> int:
        """Size of all tensor files together."""
        return sum((self.directory / name).stat().st_size for name in self.files)

    @property
    def tokenizer_path(self) -> Path:
        """The sentencepiece model; raises CheckpointError where it is missing."""
        path = self.directory / TOKENIZER_NAME
        if not path.is_file():
            raise CheckpointError(
                f"{TOKENIZER_NAME} is missing from the checkpoint: copy it there from the published one"
            )
        return path

    def source(
        self, source_id: str, revision: str | None, on_bytes: Callable[[int], None] = lambda _: None
    ) -> Source:
        """Identity of the checkpoint; reads every byte once to hash it, and tells `on_bytes` as it goes."""
        digest = hashlib.sha256()
        for name in self.files:
            digest.update(hash_file(self.directory / name, on_bytes).encode())
        return Source(id=source_id, revision=revision, digest=digest.hexdigest())


def _header(path: Path) -> Iterator[tuple[str, StoredTensor]]:
    _check_not_pointer(path)
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - a handle is no mapping
                view = file.get_slice(name)
                yield name, StoredTensor(path.name, tuple(view.get_shape()), view.get_dtype())
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path.name} is truncated or no safetensors file: download it again"
        ) from error


def _check_names(found: Set[str], config: CheckpointConfig) -> None:
    expected = expected_shapes(config).keys()
    missing, surplus = sorted(expected - found), sorted(found - expected)
    if missing:
        raise CheckpointError(
            f"{_count(missing)} missing: {_some(missing)}; download the checkpoint again, or correct "
            "the layer counts in config.json"
        )
    if surplus:
        raise CheckpointError(
            f"{_count(surplus)} unknown: {_some(surplus)}; this is another model's checkpoint, or "
            "config.json names too few layers"
        )


def _check_each(stored: Mapping[str, StoredTensor], config: CheckpointConfig) -> None:
    for name, shape in expected_shapes(config).items():
        tensor = stored[name]
        if tensor.shape != shape:
            raise CheckpointError(
                f"{name} has shape {list(tensor.shape)} but config.json makes it {list(shape)}: config.json "
                "belongs to another checkpoint"
            )
        if tensor.dtype not in _DTYPES:
            raise CheckpointError(
                f"{name} is stored as {tensor.dtype}: only {', '.join(_DTYPES)} weights can be exported, use "
                "the unquantised checkpoint"
            )


def _read_config(directory: Path) -> dict[str, Any]:
    path = directory / CONFIG_NAME
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise CheckpointError(
            f"no readable {CONFIG_NAME} in {directory}: name the directory of a checkpoint, or a hub id"
        ) from None
    except ValueError:
        raise CheckpointError(f"{path} is not JSON: download it again") from None
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} holds no JSON object: download it again")
    return config


def _tensor_files(directory: Path) -> tuple[str, ...]:
    index = directory / INDEX_NAME
    if index.is_file():
        return _indexed_files(index)
    if (directory / SINGLE_NAME).is_file():
        return (SINGLE_NAME,)
    if any(found for pattern in _PICKLES for found in directory.glob(pattern)):
        raise CheckpointError(
            f"{directory} holds pickled weights but no safetensors, and pickles are never loaded: download "
            "the safetensors files of the checkpoint"
        )
    raise CheckpointError(f"no {SINGLE_NAME} and no {INDEX_NAME} in {directory}: download the checkpoint")


def _indexed_files(index: Path) -> tuple[str, ...]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        raise CheckpointError(f"{index} is no safetensors index: download it again") from None
    for name in names:
        # An index from elsewhere must not reach outside its directory.
        if not isinstance(name, str) or Path(name).name != name:
            raise CheckpointError(f"{index} names a file outside its directory: download it again")
        if not name.endswith(".safetensors"):
            raise CheckpointError(f"{name} is not a safetensors file: pickles are never loaded")
        if not (index.parent / name).is_file():
            raise CheckpointError(f"{name} is missing though {INDEX_NAME} names it: download it again")
    return tuple(names)


def _check_not_pointer(path: Path) -> None:
    with path.open("rb") as file:
        if file.read(40).startswith(b"version https://git-lfs"):
            raise CheckpointError(f"{path.name} is a git-lfs pointer, not the weights: run `git lfs pull`")


def _some(names: list[str]) -> str:
    more = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _count(names: list[str]) -> str:
    return "1 tensor is" if len(names) == 1 else f"{len(names)} tensors are"
