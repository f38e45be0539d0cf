"""Owns reading config.json, the one place of every size and every hyper-parameter."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo_model.layouts import Sizes

DIRECTORY = Path(__file__).parent
CONFIG = DIRECTORY / "config.json"
RUN = DIRECTORY / "run"  # training state; not committed
CHECKPOINT = DIRECTORY / "checkpoint"


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of training."""

    steps: int
    batch: int  # images (eye) or conversations (all) a step
    matrix_rate: float  # Muon's
    other_rate: float  # AdamW's
    final_rate: float  # both rates' factor at the end, reached linearly
    warm_up: int  # steps
    kinds: dict[str, float]  # share of every kind of sample: methods of Layouts, "several_images", "no_image"
    small_share: float  # of the images whose slices show nothing more than the overview
    slices: int = 0  # overview and slices of an image for the eye, at most
    eye_images: int = 0  # all: images a step that only the eye learns from
    easy_steps: int = 0  # all: so many steps on images of few slices first
    easy_kinds: dict[str, float] | None = None  # what they show
    turns: int = 0  # all: questions a conversation, at most
    eye_weight: float = 1.0  # of the throw-away heads' loss


@dataclass(frozen=True, slots=True)
class Settings:
    """config.json."""

    checkpoint: dict[str, Any]  # the checkpoint's own config.json
    sizes: Sizes
    seed: int
    query_span: float
    weight_decay: float
    gradient_clip: float
    eye: Stage
    all: Stage
    more: Stage


def read_settings(path: Path = CONFIG) -> Settings:
    """Raises TypeError for a key that is missing or unknown."""
    raw = json.loads(path.read_text(encoding="utf-8"))
    raw["sizes"] = Sizes(**raw["sizes"])
    for stage in ("eye", "all", "more"):
        raw[stage] = Stage(**raw[stage])
    return Settings(**raw)
