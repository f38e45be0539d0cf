"""Pages of read-only maps leave residence and lose nothing."""

import mmap
import os
import sys
import time
from pathlib import Path

import pytest

from service.mapped_pages import pages_returned

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="asks the Linux kernel")

SIZE = 8 << 20


def _resident_bytes(path: Path) -> int:
    """Resident size of this process's map of `path`, from /proc/self/smaps."""
    of_map = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        key, _, value = line.partition(":")
        if of_map and key == "Rss":
            return int(value.split()[0]) << 10
        of_map = of_map or line.endswith(str(path))
    return 0


def test_pages_of_the_directory_are_given_back_and_others_stay(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    content = bytes(range(256)) * (SIZE // 256)
    paths = (tmp_path / "inside" / "weights.bin", tmp_path / "other.bin")
    maps = []
    for path in paths:
        with path.open("w+b") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            maps.append(mmap.mmap(file.fileno(), SIZE, access=mmap.ACCESS_READ))
    inside, other = maps
    assert inside[:] == other[:] == content
    assert [_resident_bytes(path) for path in paths] == [SIZE, SIZE]
    with pages_returned(tmp_path / "inside"):
        for _ in range(200):
            if _resident_bytes(paths[0]) < SIZE // 2:
                break
            time.sleep(0.05)
        else:
            pytest.skip("this file system keeps its pages (tmpfs does)")
    assert _resident_bytes(paths[1]) == SIZE
    assert inside[:] == content
    for opened in maps:
        opened.close()
