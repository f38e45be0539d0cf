"""The command line as a user meets it: exit codes, one-line errors, interrupts."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from convert.__main__ import main


def _run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of a command run in this process."""
    before = signal.getsignal(signal.SIGTERM)
    code = 0
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as exit_:
        code = int(str(exit_.code))
    finally:
        signal.signal(signal.SIGTERM, before)
    streams = capsys.readouterr()
    return code, streams.out, streams.err


def test_synthesize_export_verify(
    tiny_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, _ = _run(capsys, "synthesize", "--output", tmp_path / "checkpoint")
    assert code == 0
    written = (tmp_path / "checkpoint" / "model.safetensors").read_bytes()
    assert written == (tiny_directory / "model.safetensors").read_bytes()
    arguments = ("--checkpoint", tmp_path / "checkpoint", "--output", tmp_path / "out", "--weights", "int8")
    code, out, err = _run(capsys, "export", *arguments)
    assert code == 0, err
    assert "checkpoint: exported" in out
    assert "language_model_int8" in out
    assert "int8_asym, per-channel" in out  # NNCF's table
    code, out, err = _run(capsys, "verify", tmp_path / "out", "--checkpoint", tmp_path / "checkpoint")
    assert code == 0, err
    assert "against torch in f32" in out
    assert "greedy" in out
    code, _, err = _run(capsys, "export", *arguments)
    assert code == 2
    assert "--overwrite" in err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("export", "--checkpoint", "/nowhere/at all", "--output", "x"), "neither a directory nor a hub id"),
        (
            ("export", "--checkpoint", ".", "--revision", "main", "--output", "x"),
            "--revision belongs to a hub id",
        ),
        (("verify", "/nowhere", "--checkpoint", "."), "no readable manifest.json"),
    ],
)
def test_our_errors_are_one_line_and_exit_2(
    arguments: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = _run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert told in err
    assert err.count("\n") == 1


def test_unknown_variant_is_named_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = _run(capsys, "export", "--checkpoint", ".", "--output", "x", "--weights", "int2")
    assert code == 2
    assert "int2" in err
    assert "fp16" in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_export_leaves_nothing(number: int, tiny_directory: Path, tmp_path: Path) -> None:
    command = ["export", "--checkpoint", str(tiny_directory), "--output", str(tmp_path / "out")]
    process = subprocess.Popen(
        [sys.executable, "-m", "convert", *command],
        stderr=subprocess.PIPE,
        start_new_session=True,
        cwd=Path(__file__).resolve().parents[3],
    )
    while not list(tmp_path.glob(".out.partial-*/tokenizer.model")):
        assert process.poll() is None, "ended before it wrote anything"
        time.sleep(0.01)
    os.kill(process.pid, number)
    _, err = process.communicate()
    assert process.returncode == 130
    assert b"nothing was kept" in err
    assert list(tmp_path.iterdir()) == []
