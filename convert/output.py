"""Owns the output directory: written beside its final name, put in place whole or not at all."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from convert.errors import OutputError

_GIB = 1 << 30


@contextmanager
def fresh_directory(output: Path, *, overwrite: bool, needed_bytes: int) -> Iterator[Path]:
    """A directory to write into, renamed to `output` when the block ends well, removed when it does not.

    Raises OutputError before anything is written where `output` exists and may not be replaced, cannot be
    created, or the disk has less than `needed_bytes` free.
    """
    _check_absent(output, overwrite)
    parent = output.absolute().parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        _check_space(parent, needed_bytes)
        partial = Path(tempfile.mkdtemp(prefix=f".{output.name}.partial-", dir=parent))
    except OSError as error:
        raise OutputError(f"cannot write to {parent} ({error.strerror}): choose another --output") from None
    try:
        partial.chmod(0o755)  # mkdtemp makes it 0700, but a service may run as another user
        yield partial
        _put_in_place(partial, output)
    except OSError as error:
        raise OutputError(f"writing {output} failed ({error.strerror}): nothing was kept of it") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _check_absent(output: Path, overwrite: bool) -> None:
    if not output.exists() or overwrite:
        return
    if output.is_dir() and not any(output.iterdir()):
        return
    raise OutputError(f"{output} exists: give --overwrite to replace it, or another --output")


def _check_space(directory: Path, needed_bytes: int) -> None:
    free = shutil.disk_usage(directory).free
    if free < needed_bytes:
        raise OutputError(
            f"{needed_bytes / _GIB:.1f} GiB are needed in {directory} and {free / _GIB:.1f} GiB are free: "
            "make room or choose another --output"
        )


def _put_in_place(partial: Path, output: Path) -> None:
    """Rename; what stood there before is only removed once the new directory is in place."""
    if not output.exists():
        partial.rename(output)
        return
    before = Path(tempfile.mkdtemp(prefix=f".{output.name}.before-", dir=output.absolute().parent))
    output.rename(before / output.name)
    try:
        partial.rename(output)
    except BaseException:
        (before / output.name).rename(output)
        raise
    finally:
        shutil.rmtree(before, ignore_errors=True)
