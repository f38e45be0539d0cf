"""What config.json says, and what it may not say."""

from typing import Any

import pytest

from convert.checkpoint_config import parse_config
from convert.errors import CheckpointError
from convert.presets import preset_config


def test_scalings_follow_the_sizes() -> None:
    config = parse_config(preset_config("full"))
    assert config.logits_scaling == 9.0
    assert config.residual_multiplier == pytest.approx(1.4 / 40**0.5)
    assert (config.head_dim, config.resampler_heads) == (64, 18)
    assert parse_config(preset_config("tiny")).logits_scaling % 1 != 0


def test_sizes_that_have_defaults_may_be_left_out() -> None:
    raw = preset_config("full")
    for key in ("query_num", "scale_resolution", "max_slice_nums", "rope_theta", "num_key_value_heads"):
        del raw[key]
    assert parse_config(raw) == parse_config(preset_config("full"))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"hidden_size": None}, "hidden_size"),
        ({"hidden_size": True}, "hidden_size"),
        ({"hidden_size": -4}, "hidden_size"),
        ({"num_hidden_layers": "40"}, "num_hidden_layers"),
        ({"scale_emb": float("nan")}, "scale_emb"),
        ({"num_attention_heads": 5}, "num_attention_heads"),
        ({"num_attention_heads": 4, "hidden_size": 192}, "resampler"),
        ({"rope_scaling": {"type": "linear"}}, "rope_scaling"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings"),
        ({"vision_config": None, "vision_encoder": "vit_tiny"}, "vit_tiny"),
        ({"vision_config": [1]}, "vision_config"),
    ],
)
def test_a_wrong_value_is_named(change: dict[str, Any], named: str) -> None:
    with pytest.raises(CheckpointError, match=named):
        parse_config({**preset_config("tiny"), **change})
