"""Neither program may report to anybody: OpenVINO's telemetry package is never loaded."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.live_server import REPOSITORY


@pytest.mark.parametrize("program", ["service.app", "convert.compress"])
def test_telemetry_is_not_imported_and_leaves_no_client_id(program: str, tmp_path: Path) -> None:
    code = (
        f"import sys, {program}\n"
        "assert 'openvino' in sys.modules\n"
        "assert not [name for name, module in sys.modules.items()"
        " if name.startswith('openvino_telemetry') and module is not None]"
    )
    environment = {name: value for name, value in os.environ.items() if name not in {"CI", "NNCF_CI"}}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        env=environment | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "intel").exists()  # where the package keeps the id it reports under
