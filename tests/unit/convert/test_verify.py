"""Verification measures what it says, and refuses what cannot be compared."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from convert.errors import OptionError
from convert.synthesize import synthesize
from convert.verify import kl_divergence, verify
from service.artifacts import read_manifest
from service.errors import ArtifactError


@pytest.fixture
def artifacts(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "artifacts"))


def test_reports_go_into_the_manifest(artifacts: Path, tiny_directory: Path) -> None:
    returned = verify(artifacts, tiny_directory)
    assert read_manifest(artifacts) == returned
    reports = [returned.variants[weights].verification for weights in ("fp16", "int8", "int4")]
    fp16, int8, int4 = (report for report in reports if report is not None)
    assert fp16.language_model.max_error < 5e-5
    assert fp16.image_encoder.max_error < 1e-5
    assert fp16.text_embeddings.max_error < 1e-6
    assert fp16.kl_divergence < 1e-9
    assert fp16.identical_greedy_tokens == 1.0
    assert fp16.kl_divergence < int8.kl_divergence < int4.kl_divergence < 1.0
    assert 0.5 < int4.identical_greedy_tokens <= int8.identical_greedy_tokens
    assert int8.image_encoder == int4.image_encoder
    assert (fp16.num_images, fp16.num_positions) == (9, int4.num_positions)


def test_another_checkpoint_is_refused(artifacts: Path, tmp_path: Path) -> None:
    synthesize(tmp_path / "other", seed=1)
    with pytest.raises(OptionError, match="not what was exported here"):
        verify(artifacts, tmp_path / "other")


def test_altered_file_is_refused(artifacts: Path, tiny_directory: Path) -> None:
    path = artifacts / "language_model_int8.bin"
    raw = bytearray(path.read_bytes())
    raw[1000] ^= 1
    path.write_bytes(raw)
    with pytest.raises(ArtifactError, match=r"language_model_int8\.bin was altered"):
        verify(artifacts, tiny_directory)


def test_kl_divergence_of_known_distributions() -> None:
    p = np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]], dtype=np.float32))
    q = np.log(np.array([[0.25, 0.25, 0.5], [0.1, 0.8, 0.1]], dtype=np.float32)) + np.float32(3)
    expected = 0.5 * np.log(2) + 0.25 * np.log(0.5)
    assert kl_divergence(p, q) == pytest.approx(expected, abs=1e-6)
    assert kl_divergence(p, p) == 0.0
