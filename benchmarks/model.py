"""The model benchmarks run on: published widths, a quarter of the depth, random weights. Makes it once.

python -m benchmarks.model [--models artifacts/bench]
"""

import argparse
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from service.artifacts import MANIFEST_NAME, WEIGHT_FORMATS, Manifest, WeightFormat, read_manifest

REPOSITORY = Path(__file__).resolve().parent.parent
_MODELS = Path("artifacts/bench")
_PRESET = "quarter"


@dataclass(frozen=True, slots=True)
class BenchModel:
    """One weight format of one artifact directory."""

    directory: Path
    weights: WeightFormat
    manifest: Manifest

    @property
    def language_model(self) -> Path:
        """Its .xml file."""
        return self.directory / self.manifest.variants[self.weights].language_model

    @property
    def text_embeddings(self) -> Path:
        """Its .xml file."""
        return self.directory / self.manifest.variants[self.weights].text_embeddings

    @property
    def label(self) -> str:
        """Tells results of one model and format from another's."""
        return f"{self.manifest.model_id.rpartition('/')[2]}_{self.weights}"


def add_arguments(parser: argparse.ArgumentParser, *, choose_weights: bool = True) -> None:
    """--models or --model-dir, and --weights unless the program decides on them."""
    parser.add_argument("--models", type=Path, default=_MODELS, help="where benchmarks.model keeps its own")
    parser.add_argument("--model-dir", type=Path, help="another model instead, as `convert export` writes it")
    if choose_weights:
        parser.add_argument("--weights", choices=WEIGHT_FORMATS, default="int4")


def open_model(options: argparse.Namespace, weights: WeightFormat | None = None) -> BenchModel:
    """The model that add_arguments' options name; ends the program with a hint if it was not made yet."""
    weights = weights or options.weights
    directory: Path = options.model_dir or _artifacts(options.models)
    if not (directory / MANIFEST_NAME).is_file():
        sys.exit(f"no model in {directory}: `python -m benchmarks.model` makes it (minutes, once)")
    manifest = read_manifest(directory)
    if weights not in manifest.variants:
        sys.exit(f"{directory} has no {weights} weights, but {', '.join(manifest.variants)}")
    return BenchModel(directory.resolve(), weights, manifest)


def make(models: Path) -> None:
    """Synthesise and export, unless that was done."""
    if (_artifacts(models) / MANIFEST_NAME).is_file():
        return
    checkpoint = models / "checkpoint"
    if not checkpoint.is_dir():
        _convert("synthesize", "--preset", _PRESET, "--output", checkpoint)
    options = ("--weights", "int8", "int4", "--model-id", _PRESET)
    _convert("export", "--checkpoint", checkpoint, "--output", _artifacts(models), *options)


def _artifacts(models: Path) -> Path:
    return models / "artifacts"


def _convert(*arguments: str | Path) -> None:
    """In a process of its own, whose directory is the repository: hence absolute paths."""
    absolute = [str(value.resolve() if isinstance(value, Path) else value) for value in arguments]
    subprocess.run([sys.executable, "-m", "convert", *absolute], cwd=REPOSITORY, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=Path, default=_MODELS)
    models = parser.parse_args().models
    make(models)
    print(f"the benchmarks' model lies in {_artifacts(models)}")


if __name__ == "__main__":
    main()
