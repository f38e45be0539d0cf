"""Artifacts made by the real programs, once a session."""

import json
import shutil
from pathlib import Path

import pytest

from tests.convert_run import run_convert
from tests.stub_tokenizer import write_stub_tokenizer


@pytest.fixture(scope="session")
def golden_artifacts(goldens: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The goldens' checkpoint, completed with a tokenizer to the published layout, and exported in fp16."""
    checkpoint = tmp_path_factory.mktemp("golden") / "checkpoint"
    checkpoint.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(goldens / name, checkpoint / name)
    shutil.copy(goldens / "tokenizer" / "tokenizer_config.json", checkpoint)
    write_stub_tokenizer(checkpoint / "tokenizer.model")
    directory = checkpoint.parent / "artifacts"
    done = run_convert("export", "--checkpoint", checkpoint, "--output", directory, "--weights", "fp16")
    assert done.returncode == 0, done.stderr
    return directory


@pytest.fixture(scope="session")
def golden_chats(goldens: Path) -> list[dict[str, object]]:
    """The five whole chats of the original code."""
    chats: list[dict[str, object]] = json.loads((goldens / "chat.json").read_text(encoding="utf-8"))
    return chats
