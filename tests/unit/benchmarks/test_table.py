"""Rows as text."""

from benchmarks.table import Row, as_markdown, as_text

ROWS: list[Row] = [{"streams": 1, "tokens/s": 1234.5}, {"streams": 32, "tokens/s": 1.23456}]


def test_columns_are_aligned_to_the_right() -> None:
    assert as_text(ROWS).splitlines() == ["streams  tokens/s", "      1     1,234", "     32      1.23"]


def test_markdown() -> None:
    expected = ["| streams | tokens/s |", "| --- | --- |", "| 1 | 1,234 |", "| 32 | 1.23 |"]
    assert as_markdown(ROWS).splitlines() == expected
