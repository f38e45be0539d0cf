"""Steps in processes of their own: values, errors and deaths."""

import math
import os
import signal
from pathlib import Path

import pytest

from convert.apart import run_apart, run_sized
from convert.checkpoint import Checkpoint
from convert.errors import CheckpointError, ConvertError


def test_value_comes_back_from_another_process() -> None:
    assert run_apart(math.comb, 10, 3) == 120
    assert run_apart(os.getpid) != os.getpid()


def test_small_work_stays_here() -> None:
    assert run_sized(1, os.getpid) == os.getpid()
    assert run_sized(1 << 40, os.getpid) != os.getpid()


def test_our_errors_come_back_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no readable config\.json"):
        run_apart(Checkpoint, tmp_path)


def test_other_errors_keep_their_text() -> None:
    with pytest.raises(RuntimeError, match="ValueError: math domain error"):
        run_apart(math.sqrt, -1)


def test_killed_step_is_told() -> None:
    with pytest.raises(ConvertError, match="want of memory"):
        run_apart(signal.raise_signal, signal.SIGKILL)
    with pytest.raises(ConvertError, match="exit code 7"):
        run_apart(os._exit, 7)
