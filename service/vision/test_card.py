"""Owns the picture of the golden request, drawn by integer arithmetic: every machine gets the same pixels."""

import numpy as np
from numpy.typing import NDArray

# 40 x 25 patches of 14: shown to the model as it is, without resizing and without slices.
WIDTH = 560
HEIGHT = 350

_BARS = ((235, 235, 16), (16, 235, 235), (16, 235, 16), (235, 16, 235), (235, 16, 16), (16, 16, 235))
_CELL = 35  # pixels of one field of the checkerboard


def draw_test_card() -> NDArray[np.uint8]:
    """Colour bars, a grey ramp, a checkerboard and a disc: uint8 [HEIGHT, WIDTH, 3] RGB."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]  # int64 [HEIGHT, WIDTH]
    card: NDArray[np.uint8] = np.array(_BARS, dtype=np.uint8)[x * len(_BARS) // WIDTH]  # [HEIGHT, WIDTH, 3]
    ramp = y * 255 // (HEIGHT - 1)
    card[:, : WIDTH // 8] = ramp[:, : WIDTH // 8, None]
    checks = ((x // _CELL + y // _CELL) % 2 * 255)[..., None]
    lower = y >= HEIGHT * 2 // 3
    card = np.where(lower[..., None], checks, card).astype(np.uint8)
    disc = (x - WIDTH // 2) ** 2 + (y - HEIGHT // 2) ** 2 < (HEIGHT // 4) ** 2
    card[disc] = (240, 120, 20)
    return card
