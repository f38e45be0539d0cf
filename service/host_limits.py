"""How much memory and how many cores this process may use: cgroup, affinity, machine; sets nothing."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_CGROUP = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


def memory_limit_bytes(cgroup: Path = _CGROUP, membership: Path = _MEMBERSHIP) -> int:
    """The smallest of the machine's memory and the limits of this process's groups (cgroup v2 and v1)."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for folder in _groups(cgroup, membership, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            limit = _read_int(folder / name)
            limits += [limit] if limit else []
    return min(limits)


def num_cores(cgroup: Path = _CGROUP, membership: Path = _MEMBERSHIP) -> int:
    """Cores by affinity (which holds the cpuset), cut to the smallest CPU quota rounded down; at least 1.

    Down: one thread more than the quota pays for is throttled, and all others wait for it in every layer.
    """
    cores = [len(os.sched_getaffinity(0))]
    for folder in _groups(cgroup, membership, "cpu"):
        quota, period = _read_v2_quota(folder) or _read_v1_quota(folder) or (0, 0)
        cores += [quota // period] if quota > 0 and period > 0 else []
    return max(1, min(cores))


def _groups(cgroup: Path, membership: Path, controller: str) -> Iterator[Path]:
    """Folders whose limits apply, those of version 2 and of version 1: a group's own and all above it.

    In a container with a namespace of its own the group is the root; a service unit, or a container that sees
    the host's groups, is further down. Folders that are not there have no files to read, and no limits.
    """
    own = _own_groups(membership)
    for root, path in ((cgroup, own.get("", "/")), (cgroup / controller, own.get(controller, "/"))):
        parts = PurePosixPath(path).parts[1:]
        depth = 0 if ".." in parts else len(parts)  # 0: the group is outside of what is mounted here
        yield from (root.joinpath(*parts[:end]) for end in range(depth + 1))


def _own_groups(membership: Path) -> dict[str, str]:
    """Controller -> path of this process's group; version 2's has no controller's name."""
    groups: dict[str, str] = {}
    for line in _read(membership).splitlines():  # hierarchy:controllers:path
        controllers, _, path = line.partition(":")[2].partition(":")
        groups |= dict.fromkeys(controllers.split(","), path or "/")
    return groups


def _read_v2_quota(folder: Path) -> tuple[int, int] | None:
    words = _read(folder / "cpu.max").split()
    return (int(words[0]), int(words[1])) if len(words) == 2 and words[0].isdecimal() else None


def _read_v1_quota(folder: Path) -> tuple[int, int] | None:
    quota, period = _read_int(folder / "cpu.cfs_quota_us"), _read_int(folder / "cpu.cfs_period_us")
    return (quota, period) if quota and period else None


def _read_int(path: Path) -> int | None:
    text = _read(path)
    return int(text) if text.isdecimal() else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
