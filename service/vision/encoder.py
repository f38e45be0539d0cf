"""Owns the compiled image encoder: pixels of slices in, embeddings out; knows no requests and no threads."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from service.artifacts import ImageConfig
from service.vision.preprocess import normalize

INPUT_NAME = "pixel_values"  # f32 [n, 3, height, width]
OUTPUT_NAME = "image_embeddings"  # f32 [n, query_num, hidden_size]

# One slice of 448 x 448 at a patch of 14: four at once are no faster on a CPU (0.5 %) and take four times the
# memory for activations, and a cancel waits for them. Smaller slices still go together.
# A batch is rounded otherwise than its slices alone, by 1e-5: docs/decisions/0010-image-cache.md.
DEFAULT_MAX_BATCH_PATCHES = 1024


class VisionEncoder:
    """Vision tower and resampler on one device. Not thread-safe: one caller at a time."""

    def __init__(
        self,
        core: ov.Core,
        model_path: Path,
        device: str,
        properties: Mapping[str, object],
        image_config: ImageConfig,
        max_batch_patches: int = DEFAULT_MAX_BATCH_PATCHES,
    ) -> None:
        self._image_config = image_config
        self._max_batch_patches = max_batch_patches
        self.compiled = core.compile_model(str(model_path), device, dict(properties))
        self._request = self.compiled.create_infer_request()

    def plan_batches(self, slices: Sequence[NDArray[np.uint8]]) -> list[tuple[int, ...]]:
        """Indices of slices of one size each: max_batch_patches patches at most, one slice at least."""
        by_size: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
        for index, pixels in enumerate(slices):
            by_size[pixels.shape].append(index)
        batches = []
        for (height, width, _), indices in by_size.items():
            step = max(1, self._max_batch_patches // self._num_patches(height, width))
            batches += [tuple(indices[i : i + step]) for i in range(0, len(indices), step)]
        return batches

    def encode_batch(self, slices: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
        """Embeddings of slices of one size in one inference; the arrays own their memory."""
        self._request.infer({INPUT_NAME: normalize(slices, self._image_config)}, share_inputs=True)
        output: NDArray[np.float32] = self._request.get_tensor(OUTPUT_NAME).data  # the next run overwrites it
        return [np.array(row, dtype=np.float32) for row in output]

    def _num_patches(self, height: int, width: int) -> int:
        patch = self._image_config.patch_size
        return -(-height // patch) * -(-width // patch)
