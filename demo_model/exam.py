"""Owns the questions the model is examined with: images it has never seen, one question each; asks nobody.

The fixed English phrasing makes up half of each row.
"""

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from PIL import Image

from demo_model.layouts import Layouts, Sizes
from demo_model.palette import Language
from demo_model.questions import (
    Phrasing,
    Question,
    about_images,
    about_scene,
    any_phrasing,
    first_phrasing,
    without_image,
)
from demo_model.rows import HARDER_ROWS, ROWS, Row
from demo_model.samples import several
from demo_model.scene import Scene
from service.artifacts import ImageConfig

EXAM_SIZES = Sizes(usual_max=1500, share_above=0.0)
"""Every size from 60 to 1,500 pixels a side is as likely, on a scale of ratios."""

_NUMBERED = (*ROWS, *HARDER_ROWS)
_NEVER_TRAINED = 7  # first number of every case's seed; training has 0 and 1


@dataclass(frozen=True, slots=True)
class Case:
    """One question about some images, perhaps after another turn."""

    row: str
    task: str
    images: tuple[str, ...]  # data URLs
    before: str | None  # asked first; its answer stays in the conversation
    question: str
    answer: str


def cases(row: Row, count: int, seed: int, image_config: ImageConfig) -> Iterator[Case]:
    """`count` cases; each is the same whatever the others are."""
    for number in range(count):
        yield _case(
            row, np.random.default_rng((_NEVER_TRAINED, seed, _NUMBERED.index(row), number)), image_config
        )


def data_url(image: Image.Image, rng: Generator) -> str:
    """A PNG, or a JPEG of good quality, as often."""
    file = io.BytesIO()
    if rng.random() < 0.5:
        image.save(file, "PNG")
        kind = "png"
    else:
        image.save(file, "JPEG", quality=90)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def _case(row: Row, rng: Generator, image_config: ImageConfig) -> Case:
    layouts = Layouts(rng, image_config, EXAM_SIZES, off_seams=row.off_seams)
    language: Language = "zh" if rng.random() < 0.2 else "en"
    phrasing = first_phrasing if rng.random() < 0.5 else any_phrasing(rng)
    while True:  # a crowded scene may lack what the row asks for
        scenes, asked = _draw(row, layouts, rng, language, phrasing)
        fitting = [question for question in asked if question.task in row.tasks]
        if fitting:
            break
    question = fitting[int(rng.integers(len(fitting)))]
    images = tuple(data_url(scene.draw(rng), rng) for scene in scenes)
    before = phrasing("shape", language) if question.task == "its colour" else None
    return Case(row.name, question.task, images, before, question.text, question.answer)


def _draw(
    row: Row, layouts: Layouts, rng: Generator, language: Language, phrasing: Phrasing
) -> tuple[list[Scene], list[Question]]:
    if row.draw is not None:
        scene = row.draw(layouts)
        if row.change is not None:
            scene = row.change(scene, rng)
        return [scene], about_scene(scene, rng, language, phrasing)
    if row.tasks[0] == "abilities":
        return [], without_image(layouts.code(2, 5), language, phrasing)
    scenes = several(layouts, rng)
    return scenes, about_images(scenes, rng, language, phrasing)
