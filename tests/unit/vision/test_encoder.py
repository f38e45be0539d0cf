"""Batches by size, bounded, in order; results that stay what they are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.vision.encoder import VisionEncoder
from tests.unit.vision.encoder_model import HIDDEN_SIZE, encode_slices, expected_embeddings, open_encoder
from tests.unit.vision.images import random_rgb

SIZES = [(28, 28), (14, 56), (56, 14), (14, 14)]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> VisionEncoder:
    return open_encoder(tmp_path_factory.mktemp("encoder"), max_batch_patches=8)


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.sampled_from(SIZES), max_size=9))
def test_every_slice_gets_its_own_embeddings(encoder: VisionEncoder, sizes: list[tuple[int, int]]) -> None:
    slices = [random_rgb(*size, seed=seed) for seed, size in enumerate(sizes)]
    embeddings = encode_slices(encoder, slices)
    assert len(embeddings) == len(slices)
    for pixels, rows in zip(slices, embeddings, strict=True):
        assert rows.dtype == np.float32
        assert rows.shape == (2, HIDDEN_SIZE)
        assert rows.flags.owndata
        assert np.allclose(rows, expected_embeddings(pixels), atol=1e-5)


@settings(max_examples=50, deadline=None)
@given(sizes=st.lists(st.sampled_from([*SIZES, (140, 140)]), max_size=20))
def test_batches_hold_one_size_each_and_are_bounded(
    encoder: VisionEncoder, sizes: list[tuple[int, int]]
) -> None:
    slices = [np.zeros((*size, 3), dtype=np.uint8) for size in sizes]
    batches = encoder.plan_batches(slices)
    assert sorted(i for batch in batches for i in batch) == list(range(len(sizes)))
    for batch in batches:
        assert len({sizes[i] for i in batch}) == 1
        num_patches = sum(sizes[i][0] * sizes[i][1] // 196 for i in batch)
        assert num_patches <= 8 or len(batch) == 1


def test_results_survive_the_next_run(encoder: VisionEncoder) -> None:
    first, second = random_rgb(28, 28, 1), random_rgb(28, 28, 2)
    (kept,) = encode_slices(encoder, [first])
    encode_slices(encoder, [second])
    assert np.allclose(kept, expected_embeddings(first), atol=1e-5)


def test_sides_that_are_no_multiple_of_the_patch_count_whole_patches(encoder: VisionEncoder) -> None:
    slices = [random_rgb(15, 29)] * 3  # 2 x 3 patches each
    assert encoder.plan_batches(slices) == [(0,), (1,), (2,)]
    assert len(encode_slices(encoder, slices)) == 3
