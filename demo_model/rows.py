"""Owns what the model is examined in: the rows of the model card's tables, and how their scenes are made.

ROWS are like what it was trained on. HARDER_ROWS each leave the training in one respect: where does it break?
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from numpy.random import Generator

from demo_model.layouts import Layouts
from demo_model.scene import Scene

Change = Callable[[Scene, Generator], Scene]


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a table."""

    name: str
    minimum: float | None  # exact match; None: no aim, nobody trained for it
    draw: Callable[[Layouts], Scene] | None  # None: several images, or none at all
    tasks: tuple[str, ...]
    change: Change | None = None  # what makes a scene harder
    off_seams: float = 1.0  # share of texts that keep off the seams between slices


ROWS = (
    Row("one object: shape", 0.98, Layouts.one_figure, ("shape",)),
    Row("one object: colour", 0.98, Layouts.one_figure, ("colour",)),
    Row("one object: describe", 0.98, Layouts.one_figure, ("describe",)),
    Row("follow-up: its colour", 0.98, Layouts.one_figure, ("its colour",)),
    Row("where, among others", 0.95, Layouts.figures, ("where",)),
    Row("how many", 0.90, Layouts.counted, ("count",)),
    Row("text in the overview", 0.90, Layouts.large_text, ("read",)),
    Row("small text", 0.85, Layouts.small_text, ("read",)),
    Row("text at a place", 0.85, Layouts.placed_texts, ("read at",)),
    Row("several images: the n-th", 0.90, None, ("nth image",)),
    Row("several images: which", 0.90, None, ("which image",)),
    Row("text only", 0.98, None, ("abilities", "echo")),
    Row("what it cannot know", 0.98, Layouts.figure_and_text, ("unknown",)),
)


def _turned(scene: Scene, rng: Generator) -> Scene:
    """Shapes turned by 25 to 65 degrees; a square then stands as a diamond does, so those stay."""
    fixed = ("circle", "square", "diamond")
    turned = (
        figure
        if figure.shape in fixed
        else replace(figure, turn=float(rng.choice((-1, 1)) * rng.uniform(25, 65)) * math.pi / 180)
        for figure in scene.figures
    )
    return replace(scene, figures=tuple(turned))


def _shrunk(scene: Scene, rng: Generator) -> Scene:
    """Shapes of half the size they may have in training."""
    return replace(scene, figures=tuple(replace(f, radius=f.radius * 0.5) for f in scene.figures))


def _busy(scene: Scene, rng: Generator) -> Scene:
    """Much grain, or stripes that are plain to see."""
    texture = str(rng.choice(("noise", "stripes")))
    background = replace(scene.background, texture=texture, strength=float(rng.uniform(20, 40)))
    return replace(scene, background=background)


HARDER_ROWS = (
    Row("shape, turned", None, Layouts.one_figure, ("shape",), _turned),
    Row("shape, on a busy background", None, Layouts.one_figure, ("shape",), _busy),
    Row("where, shapes half as large", None, Layouts.figures, ("where",), _shrunk),
    Row("where, in a crowd of 6 to 15", None, Layouts.crowd, ("where",)),
    Row("how many, in a crowd of 6 to 15", None, Layouts.crowd, ("count",)),
    Row("text in the overview, on a busy background", None, Layouts.large_text, ("read",), _busy),
    Row("small text, anywhere on the seams", None, Layouts.small_text, ("read",), None, 0.0),
    Row("text at a place, beside shapes", None, Layouts.figure_and_text, ("read at",)),
)
