"""Owns what the eye is taught to see: labels for every patch and every resampler query of a slice.

They train small heads that are thrown away; the shipped model has none of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from demo_model.palette import CHARACTERS, COLOURS, PLACES, SHAPES, place_at
from demo_model.scene import Scene, Text
from service.vision.slicing import SlicePlan

IGNORED = -100
NOTHING = 0  # every class counts from 1
SLOTS = 2  # characters a patch or a query may hold
_READABLE = 13.0  # font size in the slice, pixels, from which characters are asked for
_COLOURS, _SHAPES = list(COLOURS), list(SHAPES)

Labels = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Window:
    """Which part of a scene an overview or slice shows, and how large."""

    scale_x: float  # slice pixels per scene pixel
    scale_y: float
    left: float  # slice pixels cut off before it
    top: float
    width: int  # slice pixels
    height: int

    def see(self, x: float, y: float) -> tuple[float, float]:
        """A scene's point in slice pixels."""
        return x * self.scale_x - self.left, y * self.scale_y - self.top


@dataclass(frozen=True, slots=True)
class SliceLabels:
    """Classes count from 1; 0 is nothing, IGNORED is not asked for."""

    patch_characters: Labels  # [patches, SLOTS], of the centres inside the patch, from left to right
    patch_shapes: Labels  # [patches] of the figure that covers the patch's centre
    patch_colours: Labels
    patch_places: NDArray[np.float32]  # [patches, 2]: x and y in 0..1
    query_characters: Labels  # [queries, SLOTS], of the centres inside the query's cell
    query_shapes: Labels  # [queries] of the figure whose centre is in the cell
    query_colours: Labels
    query_places: (
        Labels  # [queries] the place in the slice of the figure in the cell, else of the cell's centre
    )
    query_image_places: (
        Labels  # [queries] the place in the whole image of what is in the cell, else of the cell
    )

    @property
    def shows_something(self) -> bool:
        return bool(self.query_characters.any() or self.query_shapes.any())


def windows(scene: Scene, plan: SlicePlan) -> Iterator[Window]:
    """The overview's, then the slices', row by row."""
    width, height = plan.overview
    yield Window(width / scene.width, height / scene.height, 0, 0, width, height)
    if plan.grid is None or plan.refined is None or plan.slice_size is None:
        return
    scale_x, scale_y = plan.refined[0] / scene.width, plan.refined[1] / scene.height
    slice_width, slice_height = plan.slice_size
    for row in range(plan.grid[1]):
        for column in range(plan.grid[0]):
            yield Window(
                scale_x, scale_y, column * slice_width, row * slice_height, slice_width, slice_height
            )


def label(scene: Scene, window: Window, patch: int, query_side: int, query_span: float) -> SliceLabels:
    """`query_span`: how many patches a side the grid of query_side x query_side cells covers; what lies
    beyond belongs to the last cell."""
    columns, rows = window.width // patch, window.height // patch
    patches = _Cells(columns, rows, 1.0)
    queries = _Cells(query_side, query_side, query_span / query_side)
    for x, y, character in _characters(scene, window):
        for cells in (patches, queries):
            cells.add_character(x / patch, y / patch, character)
    patch_shapes = np.zeros(columns * rows, dtype=np.int64)
    patch_colours = np.zeros(columns * rows, dtype=np.int64)
    query_shapes = np.zeros(query_side**2, dtype=np.int64)
    query_colours = np.zeros(query_side**2, dtype=np.int64)
    query_places = _query_places(columns, rows, query_side, query_span).copy()
    query_image_places = _query_image_places(scene, window, patch, query_side, query_span)
    for text in scene.texts:
        place = PLACES.index(scene.place(*text.centre))
        for x, y, _ in _text_characters(text, window):
            query_image_places[queries.index(x / patch, y / patch)] = place
    for figure in scene.figures:
        shape, colour = 1 + _SHAPES.index(figure.shape), 1 + _COLOURS.index(figure.colour)
        x, y = window.see(figure.x, figure.y)
        radius_x, radius_y = figure.radius * window.scale_x, figure.radius * window.scale_y
        across = ((np.arange(columns) + 0.5) * patch - x) / radius_x
        down = ((np.arange(rows) + 0.5) * patch - y) / radius_y
        covered = (across[None] ** 2 + down[:, None] ** 2 < 0.64).ravel()
        covered[patches.index(x / patch, y / patch)] |= 0 <= x < window.width and 0 <= y < window.height
        patch_shapes[covered], patch_colours[covered] = shape, colour
        if 0 <= x < window.width and 0 <= y < window.height:
            cell = queries.index(x / patch, y / patch)
            query_shapes[cell], query_colours[cell] = shape, colour
            query_places[cell] = PLACES.index(place_at(x / window.width, y / window.height))
            query_image_places[cell] = PLACES.index(scene.place(figure.x, figure.y))
    return SliceLabels(
        patches.characters,
        patch_shapes,
        patch_colours,
        _places(columns, rows),
        queries.characters,
        query_shapes,
        query_colours,
        query_places,
        query_image_places,
    )


class _Cells:
    """A grid of cells that collect characters from left to right."""

    def __init__(self, columns: int, rows: int, size: float) -> None:
        self._columns, self._rows, self._size = columns, rows, size
        self.characters: Labels = np.zeros((columns * rows, SLOTS), dtype=np.int64)
        self._filled = np.zeros(columns * rows, dtype=np.int64)

    def index(self, x: float, y: float) -> int:
        """The cell of a point, in patches; what lies outside belongs to the nearest."""
        column = min(max(int(x / self._size), 0), self._columns - 1)
        row = min(max(int(y / self._size), 0), self._rows - 1)
        return row * self._columns + column

    def add_character(self, x: float, y: float, character: int) -> None:
        cell = self.index(x, y)
        if character == IGNORED:
            self.characters[cell] = IGNORED
        elif self._filled[cell] < SLOTS:
            if self.characters[cell, 0] != IGNORED:
                self.characters[cell, self._filled[cell]] = character
            self._filled[cell] += 1


def _characters(scene: Scene, window: Window) -> Iterator[tuple[float, float, int]]:
    """Centre and class of every character in sight, from left to right; IGNORED where it cannot be read."""
    return iter(sorted(one for text in scene.texts for one in _text_characters(text, window)))


def _text_characters(text: Text, window: Window) -> Iterator[tuple[float, float, int]]:
    _, top, _, bottom = text.box
    readable = text.size * window.scale_y >= _READABLE
    for character, (begin, end) in zip(text.characters, text.character_spans(), strict=True):
        left, upper = window.see(begin, top)
        right, lower = window.see(end, bottom)
        seen_x = (min(right, window.width) - max(left, 0)) / (right - left)
        seen_y = (min(lower, window.height) - max(upper, 0)) / (lower - upper)
        if seen_x <= 0 or seen_y <= 0:
            continue
        whole = seen_x > 0.8 and seen_y > 0.8
        known = 1 + CHARACTERS.index(character) if readable and whole else IGNORED
        yield (left + right) / 2, (upper + lower) / 2, known


@cache
def _places(columns: int, rows: int) -> NDArray[np.float32]:
    x, y = np.meshgrid((np.arange(columns) + 0.5) / columns, (np.arange(rows) + 0.5) / rows)
    return np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)


@cache
def _query_places(columns: int, rows: int, side: int, span: float) -> Labels:
    centres = (np.arange(side) + 0.5) * span / side
    return np.array(
        [
            PLACES.index(place_at(x / columns, y / rows)) if x < columns and y < rows else IGNORED
            for y in centres
            for x in centres
        ],
        dtype=np.int64,
    )


def _query_image_places(scene: Scene, window: Window, patch: int, side: int, span: float) -> Labels:
    centres = (np.arange(side) + 0.5) * span / side * patch
    y, x = (grid.ravel() for grid in np.meshgrid(centres, centres, indexing="ij"))
    across = (x + window.left) / window.scale_x / scene.width
    down = (y + window.top) / window.scale_y / scene.height
    places = 3 * np.clip(down * 3, 0, 2).astype(np.int64) + np.clip(across * 3, 0, 2).astype(np.int64)
    return np.where((x < window.width) & (y < window.height), places, IGNORED)
