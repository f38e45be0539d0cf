"""What int4 is calibrated with is made the same way each time, with and without pictures."""

import numpy as np

from convert.calibration import calibration_requests
from convert.calibration_pictures import draw_pictures
from convert.checkpoint import Checkpoint
from service.prompt.tokenizer import SentencePieceTokenizer


def test_every_question_is_asked_alone_and_about_two_pictures(tiny: Checkpoint) -> None:
    model = tiny.config.model_config()
    tokenizer = SentencePieceTokenizer(tiny.tokenizer_path, model.token_ids)
    requests = list(calibration_requests(model, tokenizer))
    num_slices = [len(request.image_slots) for request in requests]
    assert num_slices[:12] == [0] * 12
    assert len(num_slices[12:]) == 24
    assert min(num_slices[12:]) == 1, "some are one slice"
    assert max(num_slices[12:]) > 1, "most are cut"
    chinese = tokenizer.encode_text("图片里有什么？")
    assert any(_contains(request.token_ids.tolist(), chinese) for request in requests[:12])
    assert all(request.token_ids[0] == model.token_ids.bos for request in requests)


def test_pictures_are_the_same_each_time_and_unlike_one_another() -> None:
    once, again = (list(draw_pictures(8, 448)) for _ in range(2))
    for left, right in zip(once, again, strict=True):
        np.testing.assert_array_equal(left, right)
        assert left.dtype == np.uint8
        assert left.shape[2] == 3
        assert max(left.shape[:2]) <= 3 * 448
        assert left.std() > 5, "there is something on it"
    assert len({picture.tobytes() for picture in once}) == 8


def _contains(ids: list[int], part: list[int]) -> bool:
    return any(ids[start : start + len(part)] == part for start in range(len(ids)))
