"""The golden picture never changes, and fits the model as it is."""

import hashlib

from service.artifacts import ImageConfig
from service.vision.slicing import plan_slices
from service.vision.test_card import HEIGHT, WIDTH, draw_test_card


def test_pixels_are_fixed() -> None:
    card = draw_test_card()
    assert card.shape == (HEIGHT, WIDTH, 3)
    assert (
        hashlib.sha256(card.tobytes()).hexdigest()
        == "2b532a6a4cec4aebfa49a61e6c7ef420ad9480caa121cbc56f625634f9d6e46f"
    )


def test_is_shown_whole_and_unresized() -> None:
    config = ImageConfig(scale_resolution=448, patch_size=14, max_slice_nums=9, query_num=64)
    plan = plan_slices(WIDTH, HEIGHT, config)
    assert plan.grid is None
    assert plan.overview == (WIDTH, HEIGHT)
