"""Owns the decision into which overview and slices an image is cut; sees sizes only, never pixels.

The arithmetic, rounding included, is that of `slice_image` and the functions it calls in openbmb/MiniCPM-V-2
modeling_minicpmv.py; the method is LLaVA-UHD's (arXiv:2403.11703, section 3.1).
"""

import math
from dataclasses import dataclass
from typing import Literal

from service.artifacts import ImageConfig

Detail = Literal["low", "high", "auto"]
Size = tuple[int, int]  # (width, height) in pixels


@dataclass(frozen=True, slots=True)
class SlicePlan:
    """How one image is shown to the model: an overview and, for a large one, a grid of slices."""

    overview: Size
    refined: Size | None = None  # the size the image is resized to before it is cut by the grid
    grid: tuple[int, int] | None = None  # (columns, rows)

    @property
    def num_images(self) -> int:
        """Overview plus slices: how often the encoder's query_num slots are filled."""
        return 1 if self.grid is None else 1 + self.grid[0] * self.grid[1]

    @property
    def slice_size(self) -> Size | None:
        """Size of each slice; the grid divides `refined` without rest."""
        if self.refined is None or self.grid is None:
            return None
        return self.refined[0] // self.grid[0], self.refined[1] // self.grid[1]


def plan_slices(width: int, height: int, image_config: ImageConfig, detail: Detail = "high") -> SlicePlan:
    """Plan for an image of width x height pixels (both at least 1, upright).

    "low" gives the overview alone, at the size an image too small for slices would have; "auto" is "high".
    """
    side, patch = image_config.scale_resolution, image_config.patch_size
    multiple = min(math.ceil(width * height / (side * side)), image_config.max_slice_nums)
    if multiple <= 1 or detail == "low":
        return SlicePlan(_best_resize(width, height, side, patch, allow_upscale=True))
    grid = _best_grid(width, height, multiple, image_config.max_slice_nums)
    return SlicePlan(
        overview=_best_resize(width, height, side, patch, allow_upscale=False),
        refined=_refined_size(width, height, grid, side, patch),
        grid=grid,
    )


def _best_grid(width: int, height: int, multiple: int, max_slice_nums: int) -> tuple[int, int]:
    """The (columns, rows) whose ratio is nearest to the image's in log space; the first of equals wins."""
    log_ratio = math.log(width / height)
    counts = [n for n in (multiple - 1, multiple, multiple + 1) if 1 < n <= max_slice_nums]
    grids = [(cols, n // cols) for n in counts for cols in range(1, n + 1) if n % cols == 0]
    return min(grids, key=lambda grid: abs(log_ratio - math.log(grid[0] / grid[1])))


def _best_resize(width: float, height: float, side: int, patch: int, *, allow_upscale: bool) -> Size:
    """Size of about side x side pixels in all, keeping the ratio, in whole patches."""
    if width * height > side * side or allow_upscale:
        ratio = width / height
        height = int(side / math.sqrt(ratio))
        width = int(height * ratio)
    return _whole(width, patch), _whole(height, patch)


def _refined_size(width: int, height: int, grid: tuple[int, int], side: int, patch: int) -> Size:
    cols, rows = grid
    cell_width, cell_height = _whole(width, cols) / cols, _whole(height, rows) / rows
    slice_width, slice_height = _best_resize(cell_width, cell_height, side, patch, allow_upscale=True)
    return slice_width * cols, slice_height * rows


def _whole(length: float, unit: int) -> int:
    """The nearest multiple of `unit`, at least one; halves go to the even multiple, as Python rounds."""
    return max(round(length / unit) * unit, unit)
