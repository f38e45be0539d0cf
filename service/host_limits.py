"""How much memory and how many cores this process may use: cgroup, affinity, machine; sets nothing."""

import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def memory_limit_bytes(cgroup: Path = _CGROUP) -> int:
    """The smaller of the machine's memory and the container's limit (cgroup v2, else v1)."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = (_read_int(cgroup / "memory.max"), _read_int(cgroup / "memory/memory.limit_in_bytes"))
    return min([machine, *(limit for limit in limits if limit)])


def num_cores(cgroup: Path = _CGROUP) -> int:
    """Cores by affinity (which holds the cpuset), cut to the CPU quota rounded down; at least 1.

    Down: one thread more than the quota pays for is throttled, and all others wait for it in every layer.
    """
    available = len(os.sched_getaffinity(0))
    quota, period = _read_v2_quota(cgroup) or _read_v1_quota(cgroup) or (0, 0)
    return max(1, min(available, quota // period)) if quota > 0 and period > 0 else available


def _read_v2_quota(cgroup: Path) -> tuple[int, int] | None:
    words = _read(cgroup / "cpu.max").split()
    return (int(words[0]), int(words[1])) if len(words) == 2 and words[0].isdecimal() else None


def _read_v1_quota(cgroup: Path) -> tuple[int, int] | None:
    quota, period = _read_int(cgroup / "cpu/cpu.cfs_quota_us"), _read_int(cgroup / "cpu/cpu.cfs_period_us")
    return (quota, period) if quota and period else None


def _read_int(path: Path) -> int | None:
    text = _read(path)
    return int(text) if text.isdecimal() else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
