"""The fixed phrasings, and answers that follow from what is drawn."""

import numpy as np
import pytest

from demo_model.exam import cases
from demo_model.questions import PHRASES, about_images, about_scene, describe, first_phrasing
from demo_model.rows import HARDER_ROWS, ROWS, Row
from demo_model.scene import Background, Figure, Scene, Text
from service.artifacts import ImageConfig

IMAGE = ImageConfig(scale_resolution=112, patch_size=14, max_slice_nums=6, query_num=36)
WHITE = Background((255, 255, 255))
STAR = Figure("star", "red", (255, 0, 0), 50, 40, 30)
CIRCLES = tuple(Figure("circle", "blue", (0, 0, 255), x, 200, 20) for x in (60, 150, 250))
TEXT = Text("K7M", (0, 0, 0), None, 40, 200, 10)


def answers(scene: Scene, seed: int = 0) -> dict[str, str]:
    asked = about_scene(scene, np.random.default_rng(seed), "en", first_phrasing)
    return {question.text: question.answer for question in asked}


def test_first_phrasings_are_fixed() -> None:
    assert {task: phrases["en"][0] for task, phrases in PHRASES.items()} == {
        "shape": "What shape is this?",
        "colour": "What colour is the {shape}?",
        "describe": "Describe the image.",
        "its colour": "And its colour?",
        "where": "Where is the {thing}?",
        "count": "How many {things} are there?",
        "read": "Read the text.",
        "read at": "Read the text at the {place}.",
        "nth image": "What is in the {nth} image?",
        "which image": "Which image has the {shape}?",
        "abilities": "What can you do?",
        "echo": "Repeat: {code}",
        "unknown": "Who painted this?",
    }


def test_one_figure() -> None:
    known = answers(Scene(300, 300, WHITE, (STAR,)))
    assert known["What shape is this?"] == "star"
    assert known["And its colour?"] == "red"
    assert known["Where is the red star?"] == "top left"
    assert known["Read the text."] == "no text"
    assert known["Describe the image."] == "a red star"


def test_several_figures_and_a_text() -> None:
    known = answers(Scene(300, 300, WHITE, (STAR, *CIRCLES), (TEXT,)))
    assert known["How many blue circles are there?"] == "3"
    assert known["What colour is the star?"] == "red"
    assert known["Read the text."] == "K7M"
    assert known["Read the text at the top right."] == "K7M"
    assert "What shape is this?" not in known
    assert "Where is the blue circle?" not in known


def test_things_are_described_from_left_to_right() -> None:
    scene = Scene(300, 300, WHITE, (CIRCLES[2], STAR), ())
    assert describe(scene, "en") == "a red star and a blue circle"
    assert describe(scene, "zh") == "一个红色星形和一个蓝色圆形"


def test_several_images() -> None:
    scenes = [Scene(100, 100, WHITE, (STAR,)), Scene(300, 300, WHITE, (CIRCLES[0],))]
    asked = about_images(scenes, np.random.default_rng(0), "en", first_phrasing)
    known = {question.text: question.answer for question in asked}
    assert known["What is in the second image?"] == "a blue circle"
    assert known["Which image has the star?"] == "the first image"


@pytest.mark.parametrize("row", [*ROWS, *HARDER_ROWS], ids=lambda row: row.name)
def test_the_exam_repeats_and_asks_what_its_row_says(row: Row) -> None:
    first, again = (list(cases(row, 3, 1, IMAGE)) for _ in range(2))
    assert first == again
    assert all(case.row == row.name for case in first)
    assert list(cases(row, 3, 2, IMAGE)) != first
