"""Fixtures shared by every suite."""

import os
from pathlib import Path

import hypothesis
import pytest

from tests.convert_run import run_convert

REPOSITORY = Path(__file__).resolve().parent.parent

# People find new examples; CI, whose answer decides over somebody's change, tries the same ones every time.
hypothesis.settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    hypothesis.settings.load_profile("ci")


@pytest.fixture(scope="session")
def goldens() -> Path:
    """Directory of numbers computed by the original model code; not part of the repository."""
    path = REPOSITORY.parent / "shared" / "goldens"
    if not path.is_dir():
        pytest.skip("the goldens (../shared/goldens) are not on this machine")
    return path


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthesised checkpoint of the published layout, a few MB."""
    directory = tmp_path_factory.mktemp("checkpoint") / "tiny"
    done = run_convert("synthesize", "--preset", "tiny", "--seed", "7", "--output", directory)
    assert done.returncode == 0, done.stderr
    return directory


@pytest.fixture(scope="session")
def tiny_artifacts(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All three variants of the tiny checkpoint."""
    directory = tmp_path_factory.mktemp("artifacts") / "tiny"
    done = run_convert("export", "--checkpoint", tiny_checkpoint, "--output", directory)
    assert done.returncode == 0, done.stderr
    return directory
