"""Plans hold their promises for every size and every parameter, and equal a literal transcript."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.artifacts import ImageConfig
from service.vision.slicing import SlicePlan, plan_slices

REAL = ImageConfig(scale_resolution=448, patch_size=14, max_slice_nums=9, query_num=64)
SMALL = ImageConfig(scale_resolution=112, patch_size=14, max_slice_nums=6, query_num=16)
CONFIGS = st.sampled_from([REAL, SMALL, REAL.model_copy(update={"max_slice_nums": 1})])
SIDES = st.integers(1, 300) | st.integers(300, 16_384)


@pytest.mark.parametrize(
    ("width", "height", "config", "expected"),
    [
        (448, 448, REAL, SlicePlan((448, 448))),
        (449, 448, REAL, SlicePlan((448, 448), (644, 630), (2, 1))),
        (1, 1, REAL, SlicePlan((448, 448))),
        (1920, 1080, REAL, SlicePlan((602, 336), (1680, 952), (4, 2))),
        (112, 112, SMALL, SlicePlan((112, 112))),
        (640, 480, SMALL, SlicePlan((126, 98), (294, 224), (3, 2))),
        (4000, 100, SMALL, SlicePlan((686, 14), (1680, 42), (6, 1))),
    ],
)
def test_plans(width: int, height: int, config: ImageConfig, expected: SlicePlan) -> None:
    assert plan_slices(width, height, config) == expected


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (808, 215, SlicePlan((868, 224))),  # 231 / 14 = 16.5 becomes 16
        (623, 781, SlicePlan((392, 504), (812, 1008), (2, 2))),  # 399 / 14 = 28.5 becomes 28
        (668, 389, SlicePlan((588, 336), (840, 476), (2, 1))),  # 483 / 14 = 34.5 becomes 34
        (869, 630, SlicePlan((532, 378), (1036, 756), (2, 2))),  # a cell is 434 wide: 869 / 2 becomes 434
    ],
)
def test_halves_are_rounded_to_even(width: int, height: int, expected: SlicePlan) -> None:
    assert plan_slices(width, height, REAL) == expected


def test_detail() -> None:
    assert plan_slices(1920, 1080, REAL, "auto") == plan_slices(1920, 1080, REAL, "high")
    low = plan_slices(1920, 1080, REAL, "low")
    assert low == SlicePlan((602, 336))
    assert low.num_images == 1
    assert low.slice_size is None
    assert plan_slices(10, 10, REAL, "low") == plan_slices(10, 10, REAL, "high")


@settings(max_examples=100, deadline=None)
@given(width=SIDES, height=SIDES, config=CONFIGS)
def test_promises(width: int, height: int, config: ImageConfig) -> None:
    plan = plan_slices(width, height, config)
    patch = config.patch_size
    assert plan.num_images <= 1 + config.max_slice_nums
    assert all(side >= patch and side % patch == 0 for side in plan.overview)
    assert (plan.grid is None) == (plan.refined is None) == (plan.slice_size is None)
    if plan.grid and plan.refined and plan.slice_size:
        cols, rows = plan.grid
        assert 2 <= cols * rows == plan.num_images - 1
        assert all(side >= patch and side % patch == 0 for side in plan.slice_size)
        assert plan.refined == (cols * plan.slice_size[0], rows * plan.slice_size[1])


@settings(max_examples=100, deadline=None)
@given(width=SIDES, height=SIDES, config=CONFIGS)
def test_the_grid_is_the_original_searchs(width: int, height: int, config: ImageConfig) -> None:
    assert plan_slices(width, height, config).grid == _search_grid(width, height, config)


def _search_grid(width: int, height: int, config: ImageConfig) -> tuple[int, int] | None:
    """All grids tried one after the other, as slow and obvious as the method is described."""
    most = config.max_slice_nums
    ideal = min(math.ceil(width * height / config.scale_resolution**2), most)
    if ideal <= 1:
        return None
    best, smallest_error = (1, 1), math.inf
    for count in (ideal - 1, ideal, ideal + 1):
        for cols in range(1, count + 1):
            if count == 1 or count > most or count % cols:
                continue
            error = abs(math.log(width / height) - math.log(cols / (count // cols)))
            if error < smallest_error:
                best, smallest_error = (cols, count // cols), error
    return best
