"""One input of a compiled model over memory that stays where it is; knows no meaning of its values."""

from typing import Any, cast

import openvino as ov
from numpy.typing import NDArray


class InputTensor:
    """Allocated once for the most rows there will be. A step says how many count, and writes into them."""

    __slots__ = ("_inner", "_num_rows", "_outer", "_rows", "tensor")

    def __init__(
        self, element_type: ov.Type, most_rows: int, *inner: int, outer: tuple[int, ...] = ()
    ) -> None:
        """Rows of shape `inner`, behind axes `outer` of length 1."""
        self._inner, self._outer = inner, outer
        self._num_rows = most_rows
        self.tensor = ov.Tensor(element_type, ov.Shape([*outer, most_rows, *inner]))
        self._rows = cast(NDArray[Any], self.tensor.data).reshape(most_rows, *inner)  # no copy

    def first(self, num_rows: int) -> NDArray[Any]:
        """Let the tensor have this many rows, and give them as an array [num_rows, *inner]."""
        if num_rows != self._num_rows:  # every look at a tensor's shape costs microseconds
            self.tensor.shape = [*self._outer, num_rows, *self._inner]
            self._num_rows = num_rows
        return self._rows[:num_rows]
