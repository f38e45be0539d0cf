"""Owns how results are laid out at the terminal; measures nothing."""

from pathlib import Path

from rich.table import Table

from convert.compress import Settings
from convert.parts import PARTS
from service.artifacts import Manifest, VerificationReport

_MIB = 1 << 20


def export_table(manifest: Manifest) -> Table:
    """Every variant's files: size and compression."""
    table = Table(title=f"{manifest.model_id}: exported")
    for column in ("variant", "file", "MiB", "weights"):
        table.add_column(column, justify="right" if column == "MiB" else "left", overflow="fold")
    for weights, variant in manifest.variants.items():
        for part in PARTS:
            name: str = getattr(variant, part)
            size = sum(
                manifest.files[file].size_bytes for file in (name, str(Path(name).with_suffix(".bin")))
            )
            table.add_row(
                weights, Path(name).stem, f"{size / _MIB:,.1f}", _settings(variant.compression[part])
            )
        table.add_section()
    return table


def bit_width_texts(manifest: Manifest) -> list[str]:
    """NNCF's tables, each file's once."""
    texts: dict[str, str] = {}
    for variant in manifest.variants.values():
        for part, text in variant.bit_widths.items():
            name: str = getattr(variant, part)
            texts[name] = f"{name}\n{text}"
    return list(texts.values())


def verification_table(manifest: Manifest) -> Table:
    """Every verified variant against torch."""
    table = Table(title=f"{manifest.model_id}: against torch in f32")
    parts = (part.replace("_", " ") for part in PARTS)
    for column in ("variant", *parts, "KL, nats", "same greedy token"):
        table.add_column(column, justify="left" if column == "variant" else "right", overflow="fold")
    for weights, variant in manifest.variants.items():
        if variant.verification is not None:
            table.add_row(weights, *_cells(variant.verification), end_section=True)
    table.caption = "parts: max error, below it the mean"
    return table


def _cells(report: VerificationReport) -> list[str]:
    parts = [getattr(report, part) for part in PARTS]
    return [
        *(f"{part.max_error:.2g}\n{part.mean_error:.2g}" for part in parts),
        f"{report.kl_divergence:.2g}",
        f"{report.identical_greedy_tokens:.1%}\nof {report.num_positions}",
    ]


def _settings(settings: Settings) -> str:
    mode = settings.get("mode")
    rest = {key: value for key, value in settings.items() if key != "mode" and value is not False}
    shown = (
        f"{key}={value:.2g}" if isinstance(value, float) else f"{key}={value}" for key, value in rest.items()
    )
    return " ".join([str(mode), *shown])
