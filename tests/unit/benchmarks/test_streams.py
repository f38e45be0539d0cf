"""What is made of the times of tokens."""

import numpy as np
import pytest

from benchmarks.streams import (
    StreamTimes,
    decode_tokens_per_s,
    equal_share,
    mean_ttft_s,
    random_prompts,
    step_s,
    wall_s,
)

EARLY = StreamTimes(0.0, (1.0, 2.0, 3.0, 4.0), (5, 6, 7, 8))
LATE = StreamTimes(0.0, (2.5, 3.5, 4.5, 5.5), (5, 6, 7, 9))


def test_decode_speed_is_of_the_time_both_decode() -> None:
    # From 2.5 to 4.0: tokens at 3.0 and 4.0, at 2.5 and 3.5.
    assert decode_tokens_per_s([EARLY, LATE]) == pytest.approx(2.0)


def test_decode_speed_does_not_depend_on_the_order_within_a_step() -> None:
    steps = np.arange(1.0, 5.0)
    streams = [StreamTimes(0.0, tuple(steps + late)) for late in (0.0, 0.01, 0.02, 0.03)]
    assert decode_tokens_per_s(streams) == pytest.approx(4.0)
    assert decode_tokens_per_s(streams[::-1]) == pytest.approx(4.0)


def test_decode_speed_of_one_stream() -> None:
    assert decode_tokens_per_s([EARLY]) == pytest.approx(1.0)


def test_streams_one_after_the_other_have_no_decode_speed() -> None:
    with pytest.raises(ValueError, match="longer answers"):
        decode_tokens_per_s([EARLY, StreamTimes(4.0, (5.0, 6.0))])


def test_other_figures() -> None:
    assert mean_ttft_s([EARLY, LATE]) == pytest.approx(1.75)
    assert wall_s([EARLY, LATE]) == pytest.approx(5.5)
    assert step_s([EARLY, LATE], 4) == pytest.approx(1.0)
    assert equal_share([EARLY], [LATE]) == pytest.approx(0.75)


def test_prompts_are_ordinary_tokens_after_bos() -> None:
    prompts = np.stack(random_prompts(np.random.default_rng(0), 3, 50, 300))
    assert prompts.shape == (3, 50)
    assert set(prompts[:, 0].tolist()) == {1}
    assert prompts[:, 1:].min() >= 200
    assert prompts.max() < 300
