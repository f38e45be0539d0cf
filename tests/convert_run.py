"""The converter as a user runs it."""

import subprocess
import sys
from pathlib import Path

from tests.live_server import REPOSITORY


def run_convert(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """`python -m convert …` as a user runs it."""
    command = [sys.executable, "-m", "convert", *map(str, arguments)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
