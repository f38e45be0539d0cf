"""What a checkpoint directory can get wrong, each told with its fix."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from convert.checkpoint import Checkpoint
from convert.errors import CheckpointError
from convert.synthesize import synthesize

Spoil = Callable[[Path], object]


@pytest.fixture
def copy(tiny_directory: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_directory, tmp_path / "copy"))


def _rewrite(directory: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    path = directory / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    change(tensors)
    path.unlink()  # load_file may still map it
    save_file(tensors, path)


def _truncate(directory: Path) -> None:
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def _pickle_only(directory: Path) -> None:
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")


def _rename_weights(directory: Path) -> None:
    (directory / "model.safetensors").rename(directory / "weights.npz")


def _lfs_pointer(directory: Path) -> None:
    (directory / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")


def _index(weight_map: object) -> Spoil:
    def write(directory: Path) -> None:
        (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))

    return write


def _config(text: str) -> Spoil:
    return lambda directory: (directory / "config.json").write_text(text)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (_truncate, "model.safetensors is truncated or no safetensors file: download"),
        (lambda d: (d / "model.safetensors").write_bytes(b"x" * 64), "no safetensors file"),
        (lambda d: (d / "model.safetensors").write_bytes(b""), "no safetensors file"),
        (_pickle_only, "pickles are never loaded"),
        (_rename_weights, r"no model\.safetensors and no .*index"),
        (_lfs_pointer, "git lfs pull"),
        (lambda d: (d / "config.json").unlink(), "no readable config.json"),
        (_config("{"), "not JSON"),
        (_config("[1]"), "no JSON object"),
        (_index({"a": "gone.safetensors"}), "gone.safetensors is missing"),
        (_index({"a": "../model.safetensors"}), "outside its directory"),
        (_index({"a": "pytorch_model.bin"}), "not a safetensors file"),
        (_index([]), "no safetensors index"),
        (
            lambda d: _rewrite(d, lambda t: (t.pop("resampler.proj"), t.pop("vpm.norm.bias"))),
            "2 tensors are missing: resampler.proj, vpm.norm.bias; download",
        ),
        (
            lambda d: _rewrite(d, lambda t: t.update({"llm.model.layers.9.mlp.weight": torch.zeros(1)})),
            "1 tensor is unknown: llm.model.layers.9.mlp.weight; ",
        ),
        (
            lambda d: _rewrite(d, lambda t: t.update({"resampler.query": torch.zeros(32, 256)})),
            r"resampler.query has shape \[32, 256\] but config.json makes it \[64, 256\]",
        ),
        (
            lambda d: _rewrite(
                d, lambda t: t.update({"resampler.query": t["resampler.query"].to(torch.int8)})
            ),
            "resampler.query is stored as I8",
        ),
    ],
)
def test_fault_is_named(spoil: Spoil, told: str, copy: Path) -> None:
    spoil(copy)
    with pytest.raises(CheckpointError, match=told) as raised:
        Checkpoint(copy)
    assert "\n" not in str(raised.value)


def test_missing_tokenizer_is_named(copy: Path) -> None:
    (copy / "tokenizer.model").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer\.model is missing"):
        _ = Checkpoint(copy).tokenizer_path


def test_many_missing_tensors_are_counted(copy: Path) -> None:
    _rewrite(copy, lambda tensors: [tensors.pop(name) for name in list(tensors) if name.startswith("vpm.")])
    with pytest.raises(CheckpointError, match=r"29 tensors are missing: .* and 24 more"):
        Checkpoint(copy)


def test_shards_hold_what_the_single_file_holds(tiny: Checkpoint, tmp_path: Path) -> None:
    synthesize(tmp_path / "sharded", max_shard_bytes=1 << 20)
    sharded = Checkpoint(tmp_path / "sharded")
    assert len(sharded.files) > 3
    assert sharded.num_parameters() == tiny.num_parameters()
    tensors = dict(tiny.tensors(""))
    for name, tensor in sharded.tensors(""):
        assert torch.equal(tensor, tensors.pop(name)), name
    assert not tensors


def test_digest_tells_checkpoints_apart(tiny: Checkpoint, copy: Path) -> None:
    digest = tiny.source("a", None).digest
    assert Checkpoint(copy).source("b", "c").digest == digest
    _rewrite(copy, lambda tensors: tensors["resampler.query"].add_(1))
    assert Checkpoint(copy).source("a", None).digest != digest
