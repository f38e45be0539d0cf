"""Rows of figures as text: aligned for a terminal, or as Markdown.

python -m benchmarks.table NAME ...     # the Markdown tables of results/NAME.json, all without NAME
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"

_WHOLE_FROM = 100.0  # larger figures need no decimals

Row = dict[str, str | int | float]  # column -> value; all rows of a table have the same columns


def as_text(rows: Sequence[Row]) -> str:
    """Columns aligned to the right."""
    lines = _cells(rows)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines
    )


def as_markdown(rows: Sequence[Row]) -> str:
    """A table for a README."""
    head, *body = _cells(rows)
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *body))


def _cells(rows: Sequence[Row]) -> list[list[str]]:
    return [list(rows[0]), *([_text(value) for value in row.values()] for row in rows)]


def _text(value: str | float) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= _WHOLE_FROM else f"{value:.3g}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*")
    names = parser.parse_args().names or sorted(path.stem for path in RESULTS.glob("*.json"))
    for name in names:
        record: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
        if "rows" in record["figures"]:
            print(f"{name}: {record['settings']}\n\n{as_markdown(record['figures']['rows'])}\n")


if __name__ == "__main__":
    main()
