"""Labels stand where the pixels show what they say."""

import numpy as np
import pytest

from demo_model.palette import CHARACTERS, COLOURS, SHAPES
from demo_model.scene import Background, Figure, Scene, Text
from demo_model.vision_labels import IGNORED, SliceLabels, label, windows
from service.artifacts import ImageConfig
from service.vision.preprocess import cut_slices
from service.vision.slicing import plan_slices

IMAGE = ImageConfig(scale_resolution=112, patch_size=14, max_slice_nums=6, query_num=36)
WHITE = Background((255, 255, 255))
RED = (255, 0, 0)


def views(scene: Scene) -> list[tuple[np.ndarray, SliceLabels]]:
    plan = plan_slices(scene.width, scene.height, IMAGE)
    slices = cut_slices(np.asarray(scene.draw(np.random.default_rng(0))), plan)
    labels = [label(scene, window, 14, 6, 8.5) for window in windows(scene, plan)]
    return list(zip(slices, labels, strict=True))


@pytest.mark.parametrize("size", [(112, 112), (300, 300), (600, 250), (250, 900)])
def test_patches_of_a_figure_show_its_colour(size: tuple[int, int]) -> None:
    width, height = size
    scene = Scene(width, height, WHITE, (Figure("square", "red", RED, width * 0.7, height * 0.4, 50),))
    seen = 0
    for pixels, labels in views(scene):
        columns = pixels.shape[1] // 14
        for patch, shape in enumerate(labels.patch_shapes):
            y, x = divmod(patch, columns)
            centre = pixels[14 * y + 7, 14 * x + 7].astype(int)
            if shape:
                seen += 1
                assert shape == 1 + SHAPES.index("square")
                assert labels.patch_colours[patch] == 1 + list(COLOURS).index("red")
                assert centre[0] > 200
                assert centre[1:].max() < 60
    assert seen > len(views(scene)) // 2


def test_one_query_of_the_overview_holds_the_centre() -> None:
    scene = Scene(112, 112, WHITE, (Figure("star", "blue", (0, 0, 255), 30, 80, 20),))
    [(_, labels)] = views(scene)
    [cell] = np.flatnonzero(labels.query_shapes)
    assert divmod(int(cell), 6) == (int(80 / 14 * 6 / 8.5), int(30 / 14 * 6 / 8.5))


def test_characters_are_read_from_left_to_right() -> None:
    scene = Scene(112, 112, WHITE, texts=(Text("K7M", (0, 0, 0), None, 20, 20, 40),))
    [(_, labels)] = views(scene)
    cells = labels.query_characters.reshape(6, 6, 2)
    row = next(row for row in cells if row.any())
    read = [CHARACTERS[c - 1] for c in row.ravel() if c > 0]
    assert "".join(read) == "K7M"


def test_what_is_too_small_to_read_is_not_asked_for() -> None:
    scene = Scene(560, 560, WHITE, texts=(Text("K7M", (0, 0, 0), None, 40, 100, 200),))
    (_, overview), *slices = views(scene)
    assert IGNORED in overview.query_characters
    assert not (overview.query_characters > 0).any()
    assert any((labels.query_characters > 0).any() for _, labels in slices)


def test_a_character_cut_by_a_seam_is_not_asked_for() -> None:
    whole = Scene(560, 373, WHITE, texts=(Text("M", (0, 0, 0), None, 60, 100, 100),))
    plan = plan_slices(560, 373, IMAGE)
    assert plan.grid == (3, 2)
    cut = Scene(560, 373, WHITE, texts=(Text("M", (0, 0, 0), None, 60, 560 // 3 - 25, 100),))
    for scene, readable in ((whole, True), (cut, False)):
        found = any((labels.query_characters > 0).any() for _, labels in views(scene)[1:])
        assert found is readable


def test_queries_know_their_place_in_the_whole_image() -> None:
    scene = Scene(560, 373, WHITE)
    overview, *slices = (labels for _, labels in views(scene))
    assert set(overview.query_image_places.tolist()) - {IGNORED} == set(range(9))
    assert set(slices[0].query_image_places.tolist()) - {IGNORED} <= {0, 3}  # top left
    assert set(slices[-1].query_image_places.tolist()) - {IGNORED} <= {5, 8}  # bottom right
