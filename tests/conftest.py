"""Fixtures shared by every suite."""

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def goldens() -> Path:
    """Directory of numbers computed by the original model code; not part of the repository."""
    path = REPOSITORY.parent / "shared" / "goldens"
    if not path.is_dir():
        pytest.skip("the goldens (../shared/goldens) are not on this machine")
    return path
