"""Slices are cut where the plan says, and digests tell them apart."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.artifacts import ImageConfig
from service.vision.preprocess import cut_slices, normalize, slice_digest
from service.vision.slicing import SlicePlan, plan_slices
from tests.unit.vision.images import random_rgb

CONFIG = ImageConfig(scale_resolution=28, patch_size=14, max_slice_nums=4, query_num=2)


def test_slices_come_row_by_row() -> None:
    colors = np.arange(6, dtype=np.uint8).reshape(2, 3) * 40
    image = np.repeat(np.repeat(colors, 14, axis=0), 14, axis=1)[..., None].repeat(3, axis=2)
    overview, *slices = cut_slices(image, SlicePlan((28, 14), (42, 28), (3, 2)))
    assert overview.shape == (14, 28, 3)
    assert [pixels.shape for pixels in slices] == [(14, 14, 3)] * 6
    assert [int(pixels[7, 7, 0]) for pixels in slices] == colors.ravel().tolist()
    assert all(pixels.flags.c_contiguous for pixels in slices)


def test_without_a_grid_there_is_the_overview() -> None:
    image = random_rgb(20, 30)
    (overview,) = cut_slices(image, SlicePlan((30, 20)))
    assert np.array_equal(overview, image)
    assert not np.shares_memory(overview, image)


@settings(max_examples=40, deadline=None)
@given(width=st.integers(1, 400), height=st.integers(1, 400))
def test_any_image_can_be_cut(width: int, height: int) -> None:
    plan = plan_slices(width, height, CONFIG)
    slices = cut_slices(random_rgb(height, width), plan)
    assert len(slices) == plan.num_images
    assert slices[0].shape == (plan.overview[1], plan.overview[0], 3)
    assert all(pixels.shape[1::-1] == plan.slice_size for pixels in slices[1:])


@pytest.mark.parametrize("shape", [(1, 5000), (5000, 1)])
def test_a_line_can_be_cut(shape: tuple[int, int]) -> None:
    plan = plan_slices(shape[1], shape[0], CONFIG)
    assert len(cut_slices(random_rgb(*shape), plan)) == plan.num_images == 5


def test_normalize() -> None:
    config = CONFIG.model_copy(update={"mean": (0.5, 0.25, 0.0), "std": (0.5, 0.25, 1.0)})
    slices = [random_rgb(14, 28, seed) for seed in range(3)]
    values = normalize(slices, config)
    assert values.dtype == np.float32
    assert values.shape == (3, 3, 14, 28)
    assert values.flags.c_contiguous
    for n, row, col, channel in [(0, 0, 0, 0), (1, 13, 27, 1), (2, 5, 6, 2)]:
        expected = (slices[n][row, col, channel] / 255 - config.mean[channel]) / config.std[channel]
        assert values[n, channel, row, col] == pytest.approx(expected, abs=1e-6)


def test_a_digest_depends_on_every_pixel_and_on_the_size() -> None:
    pixels = random_rgb(6, 4)
    changed = pixels.copy()
    changed[5, 3, 2] ^= 1
    reshaped = pixels.reshape(4, 6, 3)
    assert len({slice_digest(item) for item in (pixels, changed, reshaped)}) == 3
    assert len(slice_digest(pixels)) == hashlib.sha256().digest_size
    assert slice_digest(pixels) == slice_digest(np.asfortranarray(pixels))
