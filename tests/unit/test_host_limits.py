"""What the kernel's files say of memory and cores."""

import os
from pathlib import Path

import pytest

from service.host_limits import memory_limit_bytes, num_cores

CORES = len(os.sched_getaffinity(0))


def _write(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{text}\n")
    return root


def test_without_cgroups_the_machine_counts(tmp_path: Path) -> None:
    assert num_cores(tmp_path) == CORES
    assert memory_limit_bytes(tmp_path) > 1 << 28


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("max 100000", CORES),
        ("50000 100000", 1),
        ("100000 100000", 1),
        ("190000 100000", 1),
        ("x", CORES),
    ],
)
def test_quota_of_version_2(tmp_path: Path, quota: str, expected: int) -> None:
    assert num_cores(_write(tmp_path, cpu_DOT_max=quota)) == expected


def test_quota_of_version_1(tmp_path: Path) -> None:
    files = {"cpu__cpu_DOT_cfs_quota_us": "50000", "cpu__cpu_DOT_cfs_period_us": "100000"}
    assert num_cores(_write(tmp_path, **files)) == 1
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    assert num_cores(tmp_path) == CORES


@pytest.mark.parametrize("name", ["memory_DOT_max", "memory__memory_DOT_limit_in_bytes"])
def test_memory(tmp_path: Path, name: str) -> None:
    machine = memory_limit_bytes(tmp_path)
    assert memory_limit_bytes(_write(tmp_path, **{name: "1048576"})) == 1 << 20
    assert memory_limit_bytes(_write(tmp_path, **{name: "max"})) == machine
    assert memory_limit_bytes(_write(tmp_path, **{name: str(1 << 62)})) == machine
