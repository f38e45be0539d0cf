"""A real OpenVINO model with the encoder's inputs and outputs, small enough to know its answer."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13 as ops

from service.artifacts import ImageConfig
from service.vision.encoder import VisionEncoder
from service.vision.worker import EncodedSlice, PendingImage, VisionWorker

CONFIG = ImageConfig(scale_resolution=28, patch_size=14, max_slice_nums=4, query_num=2)
HIDDEN_SIZE = 3


def save_encoder(path: Path) -> Path:
    """[n, 3, h, w] -> [n, 2, 3]: the mean colour, and twice the mean colour."""
    pixels = ops.parameter(ov.PartialShape([-1, 3, -1, -1]), np.float32, name="pixel_values")
    pixels.output(0).tensor.set_names({"pixel_values"})
    mean = ops.unsqueeze(ops.reduce_mean(pixels, np.array([2, 3]), keep_dims=False), np.array([1]))
    both = ops.concat([mean, ops.multiply(mean, np.float32(2))], axis=1)
    both.output(0).tensor.set_names({"image_embeddings"})
    ov.save_model(ov.Model([both], [pixels]), path, compress_to_fp16=False)
    return path


def open_encoder(directory: Path, max_batch_patches: int = 4096) -> VisionEncoder:
    properties = {"INFERENCE_PRECISION_HINT": "f32"}
    path = save_encoder(directory / "image_encoder.xml")
    return VisionEncoder(ov.Core(), path, "CPU", properties, CONFIG, max_batch_patches)


def expected_embeddings(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """What the model says of one slice, [query_num, hidden_size]."""
    mean = (pixels / 255 - 0.5).mean(axis=(0, 1)) / 0.5
    return np.stack([mean, 2 * mean])


async def encode_images(
    worker: VisionWorker, images: Sequence[PendingImage]
) -> list[tuple[EncodedSlice, ...]]:
    """Both halves of the worker's way, as generation takes them."""
    return await worker.encode_slices(await worker.decode(images))


def encode_slices(encoder: VisionEncoder, slices: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
    """All batches the encoder plans, one after another; embeddings in the order of the slices."""
    embeddings: dict[int, NDArray[np.float32]] = {}
    for batch in encoder.plan_batches(slices):
        rows = encoder.encode_batch([slices[index] for index in batch])
        embeddings.update(zip(batch, rows, strict=True))
    return [embeddings[index] for index in range(len(slices))]
