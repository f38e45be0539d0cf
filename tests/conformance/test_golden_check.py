"""A start ends where a device does not compute what the artifacts' maker did; and the model cache."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from service.artifacts import hash_file
from service.settings import EMBEDDED_MODEL_DIR
from tests.golden_check import PRECISIONS, RUNNERS, pass_the_golden_check
from tests.live_server import REPOSITORY, LiveServer, free_port

EXACT = {"inference_precision": "f32", "kv_cache_precision": "f32"}


def _start(**settings: str | Path) -> subprocess.CompletedProcess[str]:
    variables = {f"MINICPMV_{name.upper()}": str(value) for name, value in settings.items()}
    return subprocess.run(
        [sys.executable, "-m", "service"],
        env=variables | {"MINICPMV_PORT": str(free_port())},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=300,
    )


def _damaged(artifacts: Path, directory: Path, part: str) -> Path:
    """A copy with noise in a file of the right size, and a manifest that knows of it.

    Of random artifacts: a trained model shrugs off a hundredth of its weights.
    """
    shutil.copytree(artifacts, directory)
    file = directory / f"{part}_int8.bin"
    content = np.fromfile(file, dtype=np.uint8)
    size = len(content) // 100
    if part == "text_embeddings":  # rows the golden request uses are anywhere
        content[: len(content) // 2] ^= 0x55
    else:
        content[len(content) // 2 :][:size] = 0
    content.tofile(file)
    manifest = json.loads((directory / "manifest.json").read_text(encoding="utf-8"))
    manifest["files"][file.name]["sha256"] = hash_file(file)
    (directory / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return directory


@pytest.mark.parametrize(
    ("part", "settings"),
    [
        ("language_model", {}),
        ("image_encoder", {}),
        ("text_embeddings", {}),
        ("image_encoder", EXACT),
        ("image_encoder", {"runner": "stateful"}),
    ],
    ids=["language_model", "image_encoder", "text_embeddings", "exact", "stateful"],
)
def test_damaged_weights_end_the_start(
    tiny_artifacts: Path, tmp_path: Path, part: str, settings: dict[str, str]
) -> None:
    done = _start(model_dir=_damaged(tiny_artifacts, tmp_path / "model", part), **settings)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: CPU with int8 weights (inference f32, KV cache ")
    assert "token " in last
    assert " of 16 is " in last
    assert "MINICPMV_ALLOW_GOLDEN_MISMATCH" in last
    assert "Traceback" not in done.stderr


def test_a_mismatch_may_be_allowed(tiny_artifacts: Path, tmp_path: Path) -> None:
    directory = _damaged(tiny_artifacts, tmp_path / "model", "image_encoder")
    with LiveServer(model_dir=directory, allow_golden_mismatch="true") as server:
        log = server.stop()
    assert "WARNING service.app: CPU with int8 weights" in log


@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize(("inference", "kv_cache"), PRECISIONS)
async def test_whole_weights_pass_in_every_precision(runner: str, inference: str, kv_cache: str) -> None:
    precisions = {"inference_precision": inference, "kv_cache_precision": kv_cache}
    await pass_the_golden_check(EMBEDDED_MODEL_DIR, device="CPU,CPU", runner=runner, **precisions)


def _blobs(directory: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in directory.rglob("*.blob")}


@pytest.mark.parametrize(
    # OpenVINO's CPU plug-in cannot read compiled paged attention back.
    ("runner", "num_blobs", "found"),
    [("paged", 2, "1 of 2"), ("stateful", 3, "2 of 2")],
)
def test_a_second_start_finds_compiled_models(
    tmp_path: Path, runner: str, num_blobs: int, found: str
) -> None:
    with LiveServer(runner=runner, cache_dir=tmp_path / "cache") as first:
        assert "cache directory: 0 of 2 models" in first.stop()
    blobs = _blobs(tmp_path)
    assert len(blobs) == num_blobs
    with LiveServer(runner=runner, cache_dir=tmp_path / "cache") as second:
        assert f"cache directory: {found} models" in second.stop()
    assert _blobs(tmp_path) == blobs


def test_a_cache_that_cannot_be_written_ends_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = _start(cache_dir=tmp_path / "file")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "MINICPMV_CACHE_DIR" in done.stderr
