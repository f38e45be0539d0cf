"""Runs the scripts in node/ and reads the JSON they print; knows nothing of what they ask."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.wire import data_url, png

SCRIPTS = Path(__file__).parent / "node"
_OLDEST = 18  # what node/package.json asks for


def run_node(script: str, scenario: str, base_url: str, image: bytes | None = None) -> Any:
    """What `script` prints of `scenario` on the service; skips where there is no Node.js to run it."""
    node = _require_node()
    done = subprocess.run(
        [node, script, scenario, f"{base_url}/v1", data_url(image or png())],
        cwd=SCRIPTS,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _require_node() -> str:
    node = shutil.which("node")
    if node is None or shutil.which("npm") is None:
        pytest.skip("Node.js and npm are not on this machine")
    version = subprocess.run(
        [node, "--version"], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    major = re.match(r"v(\d+)", version)
    if major is None or int(major[1]) < _OLDEST:
        pytest.skip(f"Node.js {version.strip()} is older than {_OLDEST}, which the clients need")
    assert (SCRIPTS / "node_modules").is_dir(), (
        "run `make test`: it installs the packages of node/package.json"
    )
    return node
