"""Owns turning samples into padded tensors; learns nothing."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from demo_model.network import Grid
from demo_model.samples import Sample
from demo_model.vision_labels import IGNORED, SliceLabels

_LENGTH_STEP = 8  # paddings come in steps, so that cached tables and buffers are used again


@dataclass(frozen=True, slots=True)
class SliceBatch:
    """Slices of any shape."""

    patches: Tensor  # u8 [n, t, 3 * patch * patch], padded
    grids: list[Grid]
    labels: dict[str, Tensor]  # by SliceLabels' fields; patches' ones padded with IGNORED

    def normalized(self) -> Tensor:
        """f32, mean and standard deviation 0.5 as the published processor has them."""
        return self.patches.float() / 127.5 - 1


@dataclass(frozen=True, slots=True)
class ConversationBatch:
    """Samples, padded at the right."""

    slices: SliceBatch | None
    for_the_eye: SliceBatch  # of other images, about which nothing is asked
    token_ids: Tensor  # i64 [n, t]
    targets: Tensor  # i64 [n, t], -100 where nothing is learned
    slot_rows: Tensor  # i64 [slices]: sample of each slice
    slot_starts: Tensor  # i64 [slices]: its first slot
    slot_images: Tensor  # i64 [slices]: which image of the sample it belongs to
    answers: list[tuple[str, int, int, int]]  # task, sample, first and last target


def slice_batch(views: Sequence[tuple[NDArray[np.uint8], SliceLabels]], patch: int) -> SliceBatch:
    """One padded batch of slices."""
    grids = [(pixels.shape[0] // patch, pixels.shape[1] // patch) for pixels, _ in views]
    length = _padded(max(rows * columns for rows, columns in grids))
    patches = np.zeros((len(views), length, 3 * patch * patch), dtype=np.uint8)
    for row, (pixels, _) in enumerate(views):
        rows, columns = grids[row]
        cut = pixels.reshape(rows, patch, columns, patch, 3).transpose(0, 2, 4, 1, 3)
        patches[row, : rows * columns] = cut.reshape(rows * columns, -1)
    labels = {
        field.name: torch.from_numpy(_stack([getattr(label, field.name) for _, label in views], longest))
        for field in fields(SliceLabels)
        for longest in (length if field.name.startswith("patch") else len(views[0][1].query_shapes),)
    }
    return SliceBatch(torch.from_numpy(patches), grids, labels)


def conversation_batch(samples: Sequence[Sample], for_the_eye: SliceBatch, patch: int) -> ConversationBatch:
    """One padded batch of conversations."""
    length = _padded(max(len(sample.token_ids) for sample in samples))
    token_ids = torch.zeros(len(samples), length, dtype=torch.int64)
    targets = torch.full((len(samples), length), IGNORED)
    rows: list[int] = []
    starts: list[int] = []
    images: list[int] = []
    answers: list[tuple[str, int, int, int]] = []
    for row, sample in enumerate(samples):
        token_ids[row, : len(sample.token_ids)] = torch.from_numpy(sample.token_ids)
        targets[row, : len(sample.targets)] = torch.from_numpy(sample.targets)
        rows += [row] * len(sample.slot_starts)
        starts += sample.slot_starts
        images += sample.slot_images
        answers += [
            (question.task, row, first, last)
            for question, (first, last) in zip(sample.asked, sample.spans, strict=True)
        ]
    views = [
        view
        for sample in samples
        for picture in sample.pictures
        for view in zip(picture.slices, picture.labels, strict=True)
    ]
    return ConversationBatch(
        slice_batch(views, patch) if views else None,
        for_the_eye,
        token_ids,
        targets,
        torch.tensor(rows),
        torch.tensor(starts),
        torch.tensor(images),
        answers,
    )


def _padded(length: int) -> int:
    return -(-length // _LENGTH_STEP) * _LENGTH_STEP


def _stack(arrays: list[NDArray[np.generic]], length: int) -> NDArray[np.generic]:
    """[n, length, ...], filled up with IGNORED."""
    out = np.full((len(arrays), length, *arrays[0].shape[1:]), IGNORED, dtype=arrays[0].dtype)
    for row, array in enumerate(arrays):
        out[row, : len(array)] = array
    return out
