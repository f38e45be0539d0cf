"""Synthetic checkpoints are reproducible and sane."""

from pathlib import Path

import pytest
import torch

from convert.checkpoint import Checkpoint
from convert.errors import OutputError
from convert.presets import num_weights
from convert.synthesize import synthesize
from convert.tensor_table import expected_shapes


def _contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_same_seed_same_bytes(tiny_directory: Path, tmp_path: Path) -> None:
    synthesize(tmp_path / "again", seed=0)
    assert _contents(tmp_path / "again") == _contents(tiny_directory)


def test_seeds_differ_in_every_tensor(tiny: Checkpoint, tmp_path: Path) -> None:
    synthesize(tmp_path / "other", seed=1)
    other = Checkpoint(tmp_path / "other")
    assert all(not torch.equal(tensor, other.tensor(name)) for name, tensor in tiny.tensors(""))


def test_names_shapes_and_type(tiny: Checkpoint) -> None:
    tensors = dict(tiny.tensors(""))
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == expected_shapes(tiny.config)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    assert all(bool(tensor.isfinite().all()) for tensor in tensors.values())


def test_a_few_megabytes_and_every_byte_reported(tiny: Checkpoint, tmp_path: Path) -> None:
    written: list[int] = []
    synthesize(tmp_path / "again", on_bytes=written.append)
    assert sum(written) == 2 * num_weights("tiny")
    assert 2_000_000 < tiny.num_bytes < 8_000_000


def test_existing_output_is_refused(tiny_directory: Path) -> None:
    with pytest.raises(OutputError, match="--overwrite"):
        synthesize(tiny_directory)
