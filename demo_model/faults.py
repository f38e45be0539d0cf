"""Owns breaking the programs on purpose, to see which faults the exam notices; nothing of it is shipped.

`python -m demo_model faults` prints the table. Run by itself this module is a program with a fault:
`python -m demo_model.faults FAULT service | convert ARGUMENTS`.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from demo_model.evaluate import Mark, examine, running_service
from service.artifacts import read_manifest

Pixels = NDArray[np.uint8]


def examine_faults(
    checkpoint: Path, directory: Path, count: int, seed: int
) -> Iterator[tuple[str, list[Mark]]]:
    """The exam's marks with every fault, first without any; `directory` takes the exports."""
    sound = directory / "sound"
    _export("none", checkpoint, sound)
    image = read_manifest(sound).model.image
    for fault in SERVICE_FAULTS:
        with running_service(
            sound, "int8", [sys.executable, "-m", "demo_model.faults", fault, "service"]
        ) as url:
            yield fault, list(examine(url, count, seed, image))
    for fault in ("no key position table", "scale_emb 1"):
        broken = directory / fault.replace(" ", "-")
        _export(fault, _unscaled(checkpoint, directory) if fault == "scale_emb 1" else checkpoint, broken)
        with running_service(broken, "int8") as url:
            yield fault, list(examine(url, count, seed, image))


def _export(fault: str, checkpoint: Path, output: Path) -> None:
    command = [sys.executable, "-m", "demo_model.faults", fault, "convert"]
    command += ["export", "--checkpoint", str(checkpoint), "--output", str(output), "--weights", "int8"]
    subprocess.run(command, check=True, capture_output=True)


def _unscaled(checkpoint: Path, directory: Path) -> Path:
    copy = directory / "unscaled"
    shutil.copytree(checkpoint, copy)
    config = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    (copy / "config.json").write_text(json.dumps(config | {"scale_emb": 1}), encoding="utf-8")
    return copy


def _change_slices(change: Callable[[tuple[Pixels, ...]], tuple[Pixels, ...]]) -> None:
    from service.vision import preprocess, worker

    vars(worker)["cut_slices"] = lambda image, plan: change(preprocess.cut_slices(image, plan))


def _blank(pixels: Pixels) -> Pixels:
    return np.full_like(pixels, 128)


def _no_key_positions() -> None:
    import torch

    from convert import resampler

    vars(resampler)["position_table"] = lambda rows, columns, dim: torch.zeros(rows * columns, dim)


SERVICE_FAULTS: dict[str, Callable[[], None]] = {
    "none": lambda: None,
    "slices blanked": lambda: _change_slices(lambda cut: (cut[0], *map(_blank, cut[1:]))),
    "slices reversed": lambda: _change_slices(lambda cut: (cut[0], *cut[:0:-1])),
    "overview blanked": lambda: _change_slices(lambda cut: (_blank(cut[0]), *cut[1:])),
    "channels swapped": lambda: _change_slices(lambda cut: tuple(p[..., ::-1].copy() for p in cut)),
}
_FAULTS = SERVICE_FAULTS | {"no key position table": _no_key_positions, "scale_emb 1": lambda: None}


def main() -> None:
    """Be a program with a fault."""
    _, fault, program, *arguments = sys.argv
    _FAULTS[fault]()
    if program == "service":
        from service.__main__ import main as serve

        serve([])
    else:
        from convert.__main__ import main as convert

        convert(arguments)


if __name__ == "__main__":
    main()
