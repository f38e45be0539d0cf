"""Owns the tensors that hold keys and values, one pair a layer; does not know which block belongs to whom."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from service.errors import StartupError

_KEY, _VALUE = "key_cache.", "value_cache."
_ALIGNMENT_BYTES = 64  # a cache line


@dataclass(frozen=True, slots=True)
class CachePort:
    """One cache input of the compiled model."""

    name: str
    block_shape: tuple[int, ...]  # without the leading number of blocks
    element_type: ov.Type

    @property
    def block_bytes(self) -> int:
        return math.prod(self.block_shape) * int(self.element_type.bitwidth) // 8


@dataclass(frozen=True, slots=True)
class KVCacheLayout:
    """What one block looks like on the device; quantised types carry their scales in extra elements."""

    ports: tuple[CachePort, ...]
    block_size: int  # tokens

    @property
    def block_bytes(self) -> int:
        """Memory of one block over all layers."""
        return sum(port.block_bytes for port in self.ports)

    @property
    def is_quantised(self) -> bool:
        """Whether keys or values are integers with scales: a block's bits depend on how it was filled."""
        return any(port.element_type.is_integral() for port in self.ports)


def read_layout(compiled: ov.CompiledModel) -> KVCacheLayout:
    """The layout the plug-in chose, from the compiled model's inputs.

    The block size is the value cache's token axis, [blocks, heads, block_size, head_dim + scales]: keys may
    be laid out or quantised along their tokens. Raises StartupError if the plug-in leaves it open.
    """
    ports = []
    for port in compiled.inputs:
        name = port.any_name
        if name.startswith((_KEY, _VALUE)):
            if any(axis.is_dynamic for axis in list(port.partial_shape)[1:]):
                raise StartupError("the device does not say how it lays out paged keys and values")
            shape = tuple(axis.get_length() for axis in list(port.partial_shape)[1:])
            ports.append(CachePort(name, shape, port.element_type))
    assert ports, "the model was not transformed to paged attention"
    block_size = next(port.block_shape[1] for port in ports if port.name.startswith(_VALUE))
    return KVCacheLayout(tuple(ports), block_size)


class KVCache:
    """`num_blocks` zeroed blocks. Memory is committed by the operating system as blocks are first written."""

    def __init__(self, layout: KVCacheLayout, num_blocks: int) -> None:
        self.layout = layout
        self.num_blocks = num_blocks
        self._buffers = [_zeros(port.block_bytes * num_blocks) for port in layout.ports]
        self.tensors: dict[str, ov.Tensor] = {
            port.name: ov.Tensor(buffer, ov.Shape([num_blocks, *port.block_shape]), port.element_type)
            for port, buffer in zip(layout.ports, self._buffers, strict=True)
        }

    def copy_blocks(self, copies: Sequence[tuple[int, int]]) -> None:
        """Copy whole blocks, (source, destination) each, bit for bit: quantised ones with their scales."""
        sources, destinations = (list(blocks) for blocks in zip(*copies, strict=True))
        for buffer in self._buffers:
            blocks = buffer.reshape(self.num_blocks, -1)
            blocks[destinations] = blocks[sources]


def _zeros(num_bytes: int) -> NDArray[np.uint8]:
    """Zeros, because garbage that reads as NaN would poison a masked sum; calloc gives them for nothing."""
    buffer = np.zeros(num_bytes + _ALIGNMENT_BYTES, dtype=np.uint8)
    begin = -buffer.ctypes.data % _ALIGNMENT_BYTES
    return buffer[begin : begin + num_bytes]
