"""Owns giving back the pages of mapped weight files while models are loaded; knows nothing of what they hold.

OpenVINO maps an IR's .bin and keeps the map as long as the graph lives, so every page that was read once
stays resident beside the copy made of it: twice the weights. The kernel would take the pages back under
pressure; this asks for it before there is any, so that the peak is near one copy. `convert` uses it too.
"""

import ctypes
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_INTERVAL_S = 0.5
# linux/mman.h. Unlike MADV_DONTNEED it never loses data, whatever lies at the address by then.
_MADV_PAGEOUT = 21


@contextmanager
def pages_returned(directory: Path) -> Iterator[None]:
    """While the block runs and at its end, take read-only pages of `directory`'s files out of residence.

    On Linux; elsewhere nothing is done.
    """
    if sys.platform != "linux":
        yield
        return
    done = threading.Event()
    thread = threading.Thread(target=_return_until, args=(done, directory.resolve()), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _return_until(done: threading.Event, directory: Path) -> None:
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    is_last = False
    while not is_last:
        is_last = done.wait(_INTERVAL_S)
        for begin, end in _read_only_maps(directory):
            madvise(begin, end - begin, _MADV_PAGEOUT)  # advice: a kernel without it refuses, nothing breaks


def _read_only_maps(directory: Path) -> Iterator[tuple[int, int]]:
    """(begin, end) address of each read-only map of a file in `directory`, from proc(5)'s maps."""
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[1].startswith("r--") and Path(fields[5]).parent == directory:
            begin, _, end = fields[0].partition("-")
            yield int(begin, 16), int(end, 16)
