"""What a cast to f16 changes and refuses."""

import pytest
import torch

from convert.errors import CheckpointError
from convert.weight_cast import WeightCast, to_f32


def test_bf16_of_ordinary_size_is_exact_in_f16() -> None:
    cast = WeightCast(torch.float16)
    weights = torch.randn(1000, generator=torch.Generator().manual_seed(1)).clamp(1e-4, 4).to(torch.bfloat16)
    assert torch.equal(cast("w", weights).float(), weights.float())
    assert cast.max_rounding == 0.0


def test_rounding_of_tiny_weights_is_remembered() -> None:
    cast = WeightCast(torch.float16)
    cast("w", torch.tensor([2.0**-24 * 1.25, 1.0], dtype=torch.bfloat16))  # f16's grid here is 2**-24
    assert cast.max_rounding == 2.0**-26
    before = cast.max_rounding
    cast("other", torch.ones(3, dtype=torch.bfloat16))
    assert cast.max_rounding == before


@pytest.mark.parametrize("value", [1e5, float("inf"), float("nan")])
def test_weights_f16_cannot_hold_are_refused(value: float) -> None:
    with pytest.raises(CheckpointError, match=r"w\.x holds values that are no finite float16"):
        WeightCast(torch.float16)("w.x", torch.tensor([0.0, value], dtype=torch.bfloat16))


def test_f32_is_exact_but_finite() -> None:
    weights = torch.tensor([1e30, -1e-30], dtype=torch.bfloat16)
    assert torch.equal(to_f32("w", weights).to(torch.bfloat16), weights)
    with pytest.raises(CheckpointError, match="no finite float32"):
        to_f32("w", torch.tensor([float("nan")], dtype=torch.bfloat16))
