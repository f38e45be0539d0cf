"""Owns the pictures that data-aware compression is calibrated with: drawn, so that none has to be shipped.

They need not look like photographs. What matters is that the language model's layers see rows that came
through the image encoder, which differ much from text's.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from service.vision.test_card import draw_test_card

_SEED = 5
_SIDES = (0.5, 3.0)  # of the model's own resolution: most pictures are cut into slices
_LINES = 12


def draw_pictures(count: int, resolution: int) -> Iterator[NDArray[np.uint8]]:
    """`count` pictures uint8 [height, width, 3], always the same: fields, gradients, print, test cards."""
    rng = np.random.default_rng(_SEED)
    kinds: tuple[Callable[[Generator, int, int], Image.Image], ...] = (_card, _gradient, _fields, _print)
    for index in range(count):
        width, height = (int(rng.uniform(*_SIDES) * resolution) for _ in range(2))
        yield np.asarray(kinds[index % len(kinds)](rng, width, height))


def _card(rng: Generator, width: int, height: int) -> Image.Image:
    card = Image.fromarray(draw_test_card()).resize((width, height))
    return card.rotate(float(rng.uniform(0, 360)))


def _gradient(rng: Generator, width: int, height: int) -> Image.Image:
    return _noise(rng, 6).resize((width, height), Image.Resampling.BICUBIC)


def _fields(rng: Generator, width: int, height: int) -> Image.Image:
    return _noise(rng, 4).resize((width, height), Image.Resampling.NEAREST)


def _print(rng: Generator, width: int, height: int) -> Image.Image:
    picture = Image.new("RGB", (width, height), _colour(rng))
    draw = ImageDraw.Draw(picture)
    for _ in range(_LINES):
        place = (int(rng.integers(width)), int(rng.integers(height)))
        draw.text(place, "".join(map(chr, rng.integers(33, 127, 12))), fill=_colour(rng))
    return picture


def _noise(rng: Generator, side: int) -> Image.Image:
    return Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8))


def _colour(rng: Generator) -> tuple[int, int, int]:
    red, green, blue = rng.integers(0, 256, 3).tolist()
    return red, green, blue
