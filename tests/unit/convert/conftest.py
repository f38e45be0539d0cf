"""One synthesised checkpoint and one export of it for the whole room."""

from pathlib import Path

import pytest

from convert.checkpoint import Checkpoint
from convert.pipeline import ExportOptions, export
from convert.synthesize import synthesize


@pytest.fixture(scope="session")
def tiny_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint; not to be changed."""
    directory = tmp_path_factory.mktemp("tiny") / "checkpoint"
    synthesize(directory)
    return directory


@pytest.fixture(scope="session")
def tiny(tiny_directory: Path) -> Checkpoint:
    return Checkpoint(tiny_directory)


@pytest.fixture(scope="session")
def exported(tiny_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All three variants of the tiny checkpoint; not to be changed."""
    directory = tmp_path_factory.mktemp("exported") / "artifacts"
    export(tiny_directory, directory, ExportOptions(model_id="test/tiny", source_id="tiny"))
    return directory
