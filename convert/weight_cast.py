"""Owns the change of weights from the checkpoint's type to a graph's, and how much it altered them."""

import math
from collections.abc import Iterator

import torch

from convert.errors import CheckpointError

_CHUNK_WEIGHTS = 1 << 24


class WeightCast:
    """Casts tensors to one type; `max_rounding` is the largest absolute change so far.

    bf16 has fewer digits than f16 but a wider range: only weights under 2**-14 are rounded, and weights over
    65504 cannot be stored.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.max_rounding = 0.0

    def __call__(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """`tensor` in this cast's type; raises CheckpointError for a weight out of its range."""
        result = tensor.to(self.dtype)
        self.max_rounding = max(self.max_rounding, _change(name, tensor, result))
        return result


def to_f32(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """`tensor` in f32, which holds every weight exactly; raises CheckpointError for infinities and NaN."""
    result = tensor.float()
    _change(name, tensor, result)
    return result


def _change(name: str, before: torch.Tensor, after: torch.Tensor) -> float:
    """Largest absolute difference; raises CheckpointError where one of the two is not finite."""
    largest = 0.0
    for old, new in zip(_chunks(before), _chunks(after), strict=True):
        change = float((new.float() - old.float()).abs().max())  # of infinities and NaN: inf or NaN
        if not math.isfinite(change):
            kind = str(after.dtype).removeprefix("torch.")
            raise CheckpointError(
                f"{name} holds values that are no finite {kind} numbers: the checkpoint is damaged, download "
                "it again"
            )
        largest = max(largest, change)
    return largest


def _chunks(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """Views that bound the f32 copies made of them."""
    flat = tensor.reshape(-1)
    for begin in range(0, flat.numel(), _CHUNK_WEIGHTS):
        yield flat[begin : begin + _CHUNK_WEIGHTS]
