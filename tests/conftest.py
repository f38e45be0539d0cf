"""Fixtures shared by every suite."""

import os
from pathlib import Path

import hypothesis
import pytest

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
