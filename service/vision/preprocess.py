"""Owns the pixels between the decoded image and the encoder's input; knows no files and no device."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.artifacts import ImageConfig
from service.vision.slicing import Size, SlicePlan


def cut_slices(image: NDArray[np.uint8], plan: SlicePlan) -> tuple[NDArray[np.uint8], ...]:
    """The overview, then the slices row by row, each uint8 [height, width, 3].

    `image` is [height, width, 3] RGB. Pillow's bicubic resize, as the original (`slice_image`,
    openbmb/MiniCPM-V-2 modeling_minicpmv.py).
    """
    source = Image.fromarray(image)
    overview = _resize(source, plan.overview)
    if plan.refined is None or plan.grid is None:
        return (overview,)
    refined = _resize(source, plan.refined)
    cols, rows = plan.grid
    height, width = refined.shape[0] // rows, refined.shape[1] // cols
    slices = (
        refined[row * height : (row + 1) * height, col * width : (col + 1) * width]
        for row in range(rows)
        for col in range(cols)
    )
    return (overview, *(np.ascontiguousarray(pixels) for pixels in slices))


def normalize(slices: Sequence[NDArray[np.uint8]], image_config: ImageConfig) -> NDArray[np.float32]:
    """Slices of one size, uint8 [height, width, 3], as the encoder's input, float32 [n, 3, height, width]."""
    mean = np.asarray(image_config.mean, dtype=np.float32)
    std = np.asarray(image_config.std, dtype=np.float32)
    scaled = np.stack(slices).astype(np.float32) / np.float32(255)  # [n, height, width, 3]
    return np.ascontiguousarray(((scaled - mean) / std).transpose(0, 3, 1, 2))


def slice_digest(pixels: NDArray[np.uint8]) -> bytes:
    """sha256 (32 bytes) of everything a slice's embeddings depend on: its size and all its pixels."""
    digest = hashlib.sha256(np.asarray(pixels.shape, dtype="<i8").tobytes())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.digest()


def _resize(image: Image.Image, size: Size) -> NDArray[np.uint8]:
    return np.array(image.resize(size, Image.Resampling.BICUBIC), dtype=np.uint8)
