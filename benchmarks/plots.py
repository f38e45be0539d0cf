"""Draws what a result's `chart` asks for into docs/images/.

python -m benchmarks.plots [NAME ...]     # redraws from results/NAME.json, all without NAME
"""

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from benchmarks.table import RESULTS

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
_BAR_SPACE = 0.8  # of the distance between two groups


@dataclass(frozen=True, slots=True)
class Chart:
    """Bars side by side: one group a row, one colour a column."""

    title: str
    group: str  # the column that names the groups
    bars: tuple[str, ...]  # columns drawn
    unit: str  # label of the axis
    mark: tuple[str, float] | None = None  # a line across: what it is called, where it lies


def draw(name: str, rows: list[dict[str, Any]], chart: Chart) -> Path:
    """docs/images/NAME.svg, the same bytes for the same figures."""
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots()
    width = _BAR_SPACE / len(chart.bars)
    for number, column in enumerate(chart.bars):
        places = [group + (number - (len(chart.bars) - 1) / 2) * width for group in range(len(rows))]
        bars = axes.bar(places, [row[column] for row in rows], width, label=column)
        axes.bar_label(bars, fmt="{:.3g}", fontsize=8)
    if chart.mark is not None:
        label, value = chart.mark
        axes.axhline(value, color="black", linewidth=0.8, linestyle="--", label=f"{label}: {value:g}")
    axes.set_xticks(range(len(rows)), [str(row[chart.group]) for row in rows])
    axes.set_xlabel(chart.group)
    axes.set_ylabel(chart.unit)
    axes.set_title(chart.title)
    axes.spines[["top", "right"]].set_visible(False)
    if len(chart.bars) > 1 or chart.mark is not None:
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    IMAGES.mkdir(parents=True, exist_ok=True)
    path = IMAGES / f"{name}.svg"
    with rc_context({"svg.hashsalt": name}):
        figure.savefig(path, metadata={"Date": None})
    return path


def as_json(chart: Chart) -> dict[str, Any]:
    """As a result file keeps it."""
    return asdict(chart)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*")
    names = parser.parse_args().names or sorted(path.stem for path in RESULTS.glob("*.json"))
    for name in names:
        record = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
        if "chart" in record:
            print(f"drawn: {draw(name, record['figures']['rows'], Chart(**record['chart'])).name}")


if __name__ == "__main__":
    main()
