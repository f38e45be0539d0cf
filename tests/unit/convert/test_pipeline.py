"""An export end to end: what is in the directory, what the manifest says, and what a failure leaves."""

import shutil
from pathlib import Path

import pytest

from convert.checkpoint import Checkpoint
from convert.compress import CompressionOptions
from convert.errors import CheckpointError, OptionError
from convert.pipeline import ExportOptions, export, needed_bytes
from convert.vocabulary import train_vocabulary
from service.artifacts import WEIGHT_FORMATS, check_files, read_manifest


def _options(**changes: object) -> ExportOptions:
    return ExportOptions(model_id="m", source_id="s", **changes)  # type: ignore[arg-type]


def test_manifest_describes_the_directory(exported: Path, tiny: Checkpoint) -> None:
    manifest = read_manifest(exported)
    assert set(manifest.files) | {"manifest.json"} == {path.name for path in exported.iterdir()}
    for weights in WEIGHT_FORMATS:
        check_files(exported, manifest, weights)
    assert manifest.model_id == "test/tiny"
    assert manifest.source.id == "tiny"
    assert manifest.source.digest == tiny.source("x", None).digest
    assert manifest.model == tiny.config.model_config()
    assert manifest.versions.keys() >= {"openvino", "nncf", "torch"}


def test_variants_share_what_they_share(exported: Path) -> None:
    variants = read_manifest(exported).variants
    assert list(variants) == ["fp16", "int8", "int4"]
    assert variants["int4"].image_encoder == variants["int8"].image_encoder == "image_encoder_int8.xml"
    assert variants["int4"].text_embeddings == variants["int8"].text_embeddings
    assert len({variant.language_model for variant in variants.values()}) == 3


def test_compression_is_told(exported: Path) -> None:
    variants = read_manifest(exported).variants
    for part in ("image_encoder", "text_embeddings", "language_model"):
        assert variants["fp16"].compression[part]["mode"] == "fp16"
        assert 0 <= float(variants["fp16"].compression[part]["max_rounding"] or 0) < 1e-7
        assert variants["int8"].compression[part] == {"mode": "int8_asym"}
        assert "int8_asym" in variants["int8"].bit_widths[part]
    assert variants["int4"].compression["language_model"] == {
        "mode": "int4_sym",
        "group_size": 64,
        "ratio": 0.6,
        "gptq": False,
        "awq": False,
        "scale_estimation": False,
    }
    assert {name: variant.weight_group_size for name, variant in variants.items()} == {
        "fp16": None,
        "int8": None,
        "int4": 64,
    }
    assert "int4_sym, group size 64" in variants["int4"].bit_widths["language_model"]
    assert variants["fp16"].bit_widths == {}


def test_golden_tokens_are_answers(exported: Path) -> None:
    manifest = read_manifest(exported)
    for variant in manifest.variants.values():
        assert 1 <= len(variant.golden_tokens) <= manifest.golden.max_tokens == 16
        assert len(set(variant.golden_tokens)) > 3
        assert max(variant.golden_tokens) < manifest.model.vocab_size


def test_int4_options_reach_the_manifest(tiny_directory: Path, tmp_path: Path) -> None:
    compression = CompressionOptions(
        int4_mode="int4_asym",
        int4_group_size=32,
        int4_ratio=1.0,
        gptq=True,
        awq=True,
        scale_estimation=True,
    )
    manifest = export(tiny_directory, tmp_path / "out", _options(weights=("int4",), compression=compression))
    settings = manifest.variants["int4"].compression["language_model"]
    assert settings == {
        "mode": "int4_asym",
        "group_size": 32,
        "ratio": 1.0,
        "gptq": True,
        "awq": True,
        "scale_estimation": True,
        "calibration_samples": 36,
    }
    assert "int4_asym, group size 32" in manifest.variants["int4"].bit_widths["language_model"]
    # f16 graphs were a source only, and nothing else was left beside the output
    assert {name.split(".")[0] for name in manifest.files} == {
        "tokenizer",
        "image_encoder_int8",
        "text_embeddings_int8",
        "language_model_int4",
    }
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("compression", "told"),
    [
        (
            CompressionOptions(int4_group_size=128),
            "--int4-group-size 128 does not divide intermediate_size = 448",
        ),
        (CompressionOptions(int4_group_size=0), "--int4-group-size is 0"),
        (CompressionOptions(int4_ratio=1.5), "--int4-ratio is 1.5"),
    ],
)
def test_options_that_do_not_fit_are_named(
    compression: CompressionOptions, told: str, tiny_directory: Path, tmp_path: Path
) -> None:
    with pytest.raises(OptionError, match=told):
        export(tiny_directory, tmp_path / "out", _options(compression=compression))
    assert list(tmp_path.iterdir()) == []


def test_tokenizer_of_a_larger_model_is_refused(tiny_directory: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_directory, tmp_path / "copy"))
    (copy / "tokenizer.model").write_bytes(train_vocabulary(1025))
    with pytest.raises(CheckpointError, match=r"tokenizer\.model has 1025 pieces but the model 1024"):
        export(copy, tmp_path / "out", _options())


def test_failing_step_leaves_nothing(tiny_directory: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_directory, tmp_path / "copy"))
    weights = copy / "model.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[-2:] = b"\x80\x7f"  # an infinity in the last tensor: found once the part is being converted
    weights.write_bytes(raw)
    with pytest.raises(CheckpointError, match="no finite float32"):
        export(copy, tmp_path / "out", _options())
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


def test_disk_that_is_asked_for_covers_what_is_written(tiny: Checkpoint, exported: Path) -> None:
    written = sum(path.stat().st_size for path in exported.iterdir())
    needed = needed_bytes(tiny, WEIGHT_FORMATS)
    assert written < needed < written + (80 << 20)
    assert needed_bytes(tiny, ("fp16",)) < needed
