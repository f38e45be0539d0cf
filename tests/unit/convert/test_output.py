"""Whole or not at all."""

from pathlib import Path

import pytest

from convert.errors import OutputError
from convert.output import fresh_directory


def _write(output: Path, text: str, *, overwrite: bool = False, error: BaseException | None = None) -> None:
    with fresh_directory(output, overwrite=overwrite, needed_bytes=1) as directory:
        (directory / "file").write_text(text)
        if error is not None:
            raise error


def test_appears_whole_with_parents_and_is_readable_by_others(tmp_path: Path) -> None:
    output = tmp_path / "a" / "b"
    _write(output, "new")
    assert [path.name for path in output.iterdir()] == ["file"]
    assert [path.name for path in output.parent.iterdir()] == ["b"]
    assert output.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError(), SystemExit()])
def test_nothing_is_left_of_a_failure(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)):
        _write(tmp_path / "out", "new", error=error)
    assert list(tmp_path.iterdir()) == []


def test_existing_output_is_refused(tmp_path: Path) -> None:
    _write(tmp_path / "out", "old")
    with pytest.raises(OutputError, match="--overwrite"):
        _write(tmp_path / "out", "new")
    assert (tmp_path / "out" / "file").read_text() == "old"


def test_empty_directory_may_be_filled(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    _write(tmp_path / "out", "new")
    assert (tmp_path / "out" / "file").read_text() == "new"


def test_overwrite_replaces_and_leaves_no_trace(tmp_path: Path) -> None:
    _write(tmp_path / "out", "old")
    (tmp_path / "out" / "stale").touch()
    _write(tmp_path / "out", "new", overwrite=True)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["file"]
    assert (tmp_path / "out" / "file").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_failed_overwrite_keeps_what_was_there(tmp_path: Path) -> None:
    _write(tmp_path / "out", "old")
    with pytest.raises(KeyboardInterrupt):
        _write(tmp_path / "out", "new", overwrite=True, error=KeyboardInterrupt())
    assert (tmp_path / "out" / "file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_full_disk_is_told_before_writing(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match=r"1048576\.0 GiB are needed .* make room"),
        fresh_directory(tmp_path / "out", overwrite=False, needed_bytes=1 << 50),
    ):
        pytest.fail("the block must not run")
    assert list(tmp_path.iterdir()) == []


def test_unwritable_parent_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="choose another --output"):
        _write(tmp_path / "file" / "out", "new")
