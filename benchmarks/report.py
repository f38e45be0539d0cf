"""What every benchmark writes beside its figures: where and with what they were measured."""

import json
import os
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.plots import Chart, as_json, draw
from benchmarks.table import RESULTS, Row, as_text

_PACKAGES = ("openvino", "numpy")
_PEERS = ("openvino-genai", "llama-cpp-python")  # where they are installed


def machine_facts() -> dict[str, Any]:
    """Processor, cores this process may use, and the versions that matter."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "instructions": _instructions(),
        "python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES},
        **{name: found for name in _PEERS if (found := _version_if_installed(name))},
    }


def write_result(
    name: str, settings: dict[str, Any], figures: dict[str, Any], chart: Chart | None = None
) -> Path:
    """results/NAME.json: settings, figures, machine facts and, for benchmarks.plots, how to draw them."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    record = {"settings": settings, "figures": figures, "machine": machine_facts()}
    if chart is not None:
        record["chart"] = as_json(chart)
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return path


def publish(name: str, settings: Mapping[str, Any], rows: list[Row], chart: Chart) -> None:
    """Print the table, write results/NAME.json, draw docs/images/NAME.svg."""
    print(as_text(rows))
    path = write_result(name, dict(settings), {"rows": rows}, chart)
    print(f"written to {path.name}, drawn in {draw(name, rows, chart).name}")


def _processor() -> str:
    return _cpuinfo("model name") or platform.machine()


def _instructions() -> list[str]:
    """Those that decide how fast integers and half floats are."""
    flags = _cpuinfo("flags").split()
    return [
        flag
        for flag in ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8")
        if flag in flags
    ]


def _cpuinfo(key: str) -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith(key):
            return line.split(":", 1)[1].strip()
    return ""


def _version_if_installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
