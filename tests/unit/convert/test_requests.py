"""Golden and verification inputs are what the service would make of them."""

import numpy as np
import pytest

from convert.checkpoint import Checkpoint
from convert.requests import golden_request, verification_pixels, verification_requests
from service.prompt.tokenizer import SentencePieceTokenizer


@pytest.fixture(scope="module")
def tokenizer(tiny: Checkpoint) -> SentencePieceTokenizer:
    return SentencePieceTokenizer(tiny.tokenizer_path, tiny.config.model_config().token_ids)


def test_golden_request_is_one_image_and_a_question(
    tiny: Checkpoint, tokenizer: SentencePieceTokenizer
) -> None:
    request = golden_request(tiny.config.model_config(), tokenizer)
    text = tokenizer.encode_text("\nWhat is in the image?<AI>")
    head = [1, *tokenizer.encode_text("<用户>"), 101]
    assert request.token_ids.tolist() == [*head, *[0] * 64, 102, *text]
    assert [pixels.shape for pixels in request.pixels] == [(1, 3, 350, 560)]


def test_embedding_fills_the_slots_and_nothing_else(
    tiny: Checkpoint, tokenizer: SentencePieceTokenizer
) -> None:
    request = golden_request(tiny.config.model_config(), tokenizer)
    embeds = request.embed(
        lambda ids: np.repeat(ids[..., None], 256, axis=-1).astype(np.float32),
        lambda pixels: np.full((1, 64, 256), -1, dtype=np.float32),
    )
    slots = embeds[0, :, 0] == -1
    assert np.flatnonzero(slots).tolist() == list(
        range(request.image_slots[0].start, 64 + int(slots.argmax()))
    )
    np.testing.assert_array_equal(embeds[0, ~slots, 0], request.token_ids[~slots])


def test_verification_covers_text_slices_and_turns(
    tiny: Checkpoint, tokenizer: SentencePieceTokenizer
) -> None:
    requests = verification_requests(tiny.config.model_config(), tokenizer)
    assert [len(request.pixels) for request in requests] == [0, 0, 1, 3, 1]
    for request in requests:
        assert (request.token_ids == 0).sum() == 64 * len(request.pixels)
        assert len(request.token_ids) < 400


def test_verification_pixels_hold_the_odd_sizes(tiny: Checkpoint) -> None:
    shapes = [pixels.shape for pixels in verification_pixels(tiny.config.model_config())]
    assert (1, 3, 378, 378) in shapes  # the position table as it is
    assert (1, 3, 126, 1134) in shapes  # as many patches, another shape
    assert any(height % 14 and width % 14 for _, _, height, width in shapes)
    assert any(n > 1 for n, *_ in shapes)
