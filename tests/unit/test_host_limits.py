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


def test_the_groups_a_process_is_in_count_up_to_the_root(tmp_path: Path) -> None:
    membership = tmp_path / "membership"
    membership.write_text("5:cpu,cpuacct:/outer/inner\n4:memory:/outer\n0::/system.slice/minicpmv.service\n")
    machine = memory_limit_bytes(tmp_path, membership)
    for folder in ("system.slice/minicpmv.service", "cpu/outer/inner", "memory/outer"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "system.slice" / "minicpmv.service" / "memory.max").write_text("max\n")
    (tmp_path / "system.slice" / "memory.max").write_text("2097152\n")
    assert memory_limit_bytes(tmp_path, membership) == 2 << 20 < machine
    (tmp_path / "memory" / "outer" / "memory.limit_in_bytes").write_text("1048576\n")
    assert memory_limit_bytes(tmp_path, membership) == 1 << 20
    assert num_cores(tmp_path, membership) == CORES
    (tmp_path / "cpu" / "outer" / "cpu.cfs_quota_us").write_text("150000\n")
    (tmp_path / "cpu" / "outer" / "cpu.cfs_period_us").write_text("100000\n")
    assert num_cores(tmp_path, membership) == 1
    (tmp_path / "cpu" / "outer" / "cpu.cfs_quota_us").write_text("-1\n")
    (tmp_path / "system.slice" / "cpu.max").write_text("100000 100000\n")
    assert num_cores(tmp_path, membership) == 1


def test_groups_outside_of_what_is_mounted_are_left_out(tmp_path: Path) -> None:
    membership = tmp_path / "membership"
    membership.write_text("0::/../../other\nnonsense\n")
    assert num_cores(tmp_path, membership) == CORES


@pytest.mark.parametrize("name", ["memory_DOT_max", "memory__memory_DOT_limit_in_bytes"])
def test_memory(tmp_path: Path, name: str) -> None:
    machine = memory_limit_bytes(tmp_path)
    assert memory_limit_bytes(_write(tmp_path, **{name: "1048576"})) == 1 << 20
    assert memory_limit_bytes(_write(tmp_path, **{name: "max"})) == machine
    assert memory_limit_bytes(_write(tmp_path, **{name: str(1 << 62)})) == machine
