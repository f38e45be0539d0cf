"""The table of tensors against the published one."""

import json
from pathlib import Path

from convert.checkpoint_config import parse_config
from convert.presets import num_weights, preset_config
from convert.tensor_table import expected_shapes


def test_derived_table_is_the_published_one(goldens: Path) -> None:
    published = json.loads((goldens / "checkpoint_tensors.json").read_text())["shapes"]
    derived = expected_shapes(parse_config(preset_config("full")))
    assert derived == {name: tuple(shape) for name, shape in published.items()}


def test_full_preset_has_the_published_size() -> None:
    assert num_weights("full") * 2 == 6_869_931_584
    assert len(expected_shapes(parse_config(preset_config("full")))) == 694
