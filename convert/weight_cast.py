"""Owns the change of weights from the checkpoint's type to a graph's, and how much it altered them."""

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
        """A copy of `tensor` in this cast's type; raises CheckpointError for a weight out of its range."""
        result = tensor.to(self.dtype)
        for before, after in zip(_chunks(tensor), _chunks(result), strict=True):
            self._check(name, before.float(), after.float())
        return result

    def _check(self, name: str, before: torch.Tensor, after: torch.Tensor) -> None:
        if not bool(after.isfinite().all()):
            raise CheckpointError(
                f"{name} holds values that are no finite {str(self.dtype).removeprefix('torch.')} numbers: "
                "the checkpoint is damaged, download it again"
            )
        self.max_rounding = max(self.max_rounding, float((after - before).abs().max()))


def _chunks(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """Views that bound the f32 copies made of them."""
    flat = tensor.reshape(-1)
    for begin in range(0, flat.numel(), _CHUNK_WEIGHTS):
        yield flat[begin : begin + _CHUNK_WEIGHTS]
