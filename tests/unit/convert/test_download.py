"""Hub ids through the real huggingface_hub, offline and against its cache layout."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from convert.download import ALLOWED, find_checkpoint
from convert.errors import CheckpointError, OptionError

REPOSITORY = Path(__file__).resolve().parents[3]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def _find_offline(hub_cache: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """find_checkpoint in a process whose huggingface_hub may not use the network."""
    code = (
        "import sys\nfrom convert.download import find_checkpoint\nfrom convert.errors import ConvertError\n"
        "try:\n    found = find_checkpoint(*sys.argv[1:])\n"
        "except ConvertError as error:\n    sys.exit(f'{type(error).__name__}: {error}')\n"
        "print(found.directory, found.source_id, found.revision, sep='|')"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(hub_cache)}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_cached_snapshot_is_used_offline(tiny_directory: Path, tmp_path: Path) -> None:
    repository = tmp_path / "models--org--tiny"
    snapshot = Path(shutil.copytree(tiny_directory, repository / "snapshots" / COMMIT))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    for revision in ((), ("main",), (COMMIT,)):
        done = _find_offline(tmp_path, "org/tiny", *revision)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == f"{snapshot}|org/tiny|{COMMIT}"


def test_nothing_cached_offline_is_told(tmp_path: Path) -> None:
    done = _find_offline(tmp_path, "org/tiny")
    assert done.stderr.startswith("DownloadError: org/tiny is not wholly in the local cache")
    assert "HF_HUB_OFFLINE" in done.stderr


def test_directory_is_used_as_it_is(tiny_directory: Path) -> None:
    found = find_checkpoint(str(tiny_directory))
    assert (found.directory, found.source_id, found.revision) == (tiny_directory, "checkpoint", None)
    with pytest.raises(OptionError, match="--revision"):
        find_checkpoint(str(tiny_directory), "main")


@pytest.mark.parametrize("name", ["gone/away/dir", "./org/tiny", "tiny", "org/tiny;rm"])
def test_what_is_neither_is_told(name: str) -> None:
    with pytest.raises(CheckpointError, match="neither a directory nor a hub id"):
        find_checkpoint(name)


@pytest.mark.parametrize("name", ["a--b/..", "-a/b", "a/b."])
def test_what_the_hub_would_not_take_is_told(name: str) -> None:
    with pytest.raises(CheckpointError, match="no hub id"):
        find_checkpoint(name)


def test_no_code_and_no_pickle_is_fetched() -> None:
    assert not any(pattern.endswith((".py", ".bin", ".pt", "*")) for pattern in ALLOWED)
