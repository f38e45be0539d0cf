"""Owns what one image shows, shapes and texts on a background, and drawing it; asks nothing about it."""

import io
import math
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFont

from demo_model.palette import Rgb, place_at

# None: the font inside Pillow. The others come with matplotlib.
FONTS = (None, "DejaVuSans.ttf", "DejaVuSans-Bold.ttf")


@dataclass(frozen=True, slots=True)
class Figure:
    """One coloured shape."""

    shape: str
    colour: str
    rgb: Rgb
    x: float  # centre, pixels
    y: float
    radius: float  # of the circle it fits in
    turn: float = 0.0  # radians

    def covers(self, x: float, y: float) -> bool:
        """Whether a point is within four fifths of the radius."""
        return math.hypot(x - self.x, y - self.y) < 0.8 * self.radius


@dataclass(frozen=True, slots=True)
class Text:
    """One line of characters."""

    characters: str
    rgb: Rgb
    font: str | None
    size: int  # of the font, pixels
    x: float  # left end of the ink, pixels
    y: float  # top of the ink

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom of the ink."""
        left, top, right, bottom = ink(self.characters, self.font, self.size)
        return self.x, self.y, self.x + right - left, self.y + bottom - top

    @property
    def centre(self) -> tuple[float, float]:
        left, top, right, bottom = self.box
        return (left + right) / 2, (top + bottom) / 2

    def character_spans(self) -> list[tuple[float, float]]:
        """Left and right end of every character."""
        font = load_font(self.font, self.size)
        start = self.x - ink(self.characters, self.font, self.size)[0]
        ends = [font.getlength(self.characters[:n]) for n in range(len(self.characters) + 1)]
        return [(start + a, start + b) for a, b in pairwise(ends)]


@dataclass(frozen=True, slots=True)
class Background:
    """Plain, or lightly textured."""

    rgb: Rgb
    texture: str = "plain"  # plain, noise, gradient, stripes
    strength: float = 0.0


@dataclass(frozen=True, slots=True)
class Scene:
    """What an image of width x height pixels shows."""

    width: int
    height: int
    background: Background
    figures: tuple[Figure, ...] = ()
    texts: tuple[Text, ...] = field(default=())

    def place(self, x: float, y: float) -> str:
        return place_at(x / self.width, y / self.height)

    def draw(self, rng: Generator) -> Image.Image:
        """RGB; `rng` gives the texture's grain."""
        image = _background(self, rng)
        draw = ImageDraw.Draw(image)
        for figure in self.figures:
            _draw_figure(draw, figure)
        for text in self.texts:
            left, top, *_ = ink(text.characters, text.font, text.size)
            draw.text(
                (text.x - left, text.y - top), text.characters, text.rgb, load_font(text.font, text.size)
            )
        return image


def as_jpeg(image: Image.Image, quality: int) -> Image.Image:
    """The image as it comes back from a JPEG file."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


@cache
def load_font(name: str | None, size: int) -> ImageFont.FreeTypeFont:
    if name is None:
        font = ImageFont.load_default(size)
        assert isinstance(font, ImageFont.FreeTypeFont)
        return font
    from matplotlib import get_data_path

    return ImageFont.truetype(f"{get_data_path()}/fonts/ttf/{name}", size)


@cache
def ink(characters: str, font: str | None, size: int) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of a text drawn at 0, 0."""
    return load_font(font, size).getbbox(characters)


def _background(scene: Scene, rng: Generator) -> Image.Image:
    width, height, background = scene.width, scene.height, scene.background
    if background.texture == "plain":
        return Image.new("RGB", (width, height), background.rgb)
    pixels = np.empty((height, width, 3), dtype=np.float32)
    pixels[:] = background.rgb
    strength = background.strength
    if background.texture == "noise":
        pixels += rng.normal(0, strength, (height, width, 1)).astype(np.float32)
    elif background.texture == "gradient":
        pixels += np.linspace(-2 * strength, 2 * strength, width, dtype=np.float32)[None, :, None]
    else:
        period = max(4, width // 12)
        pixels += np.where(np.arange(width) // period % 2, strength, -strength)[None, :, None]
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _draw_figure(draw: ImageDraw.ImageDraw, figure: Figure) -> None:
    x, y, r = figure.x, figure.y, figure.radius
    if figure.shape == "circle":
        draw.ellipse((x - r, y - r, x + r, y + r), fill=figure.rgb)
    else:
        draw.polygon(_outline(figure), fill=figure.rgb)


def _outline(figure: Figure) -> list[tuple[float, float]]:
    """Corners of everything but a circle; a square's side is that of the circle's box, shrunk a little."""
    corners: list[tuple[float, float]]
    match figure.shape:
        case "square":
            corners = [(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)]
        case "triangle":
            corners = [(0, -1), (0.95, 0.85), (-0.95, 0.85)]
        case "diamond":
            corners = [(0, -1), (0.8, 0), (0, 1), (-0.8, 0)]
        case "star":
            corners = [
                (radius * math.sin(math.pi * n / 5), -radius * math.cos(math.pi * n / 5))
                for n, radius in enumerate([1.0, 0.42] * 5)
            ]
        case _:  # a cross
            a, b = 0.3, 0.95
            corners = [(-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a)]
            corners += [(-x, -y) for x, y in corners]
    sine, cosine = math.sin(figure.turn), math.cos(figure.turn)
    return [
        (
            figure.x + figure.radius * (x * cosine - y * sine),
            figure.y + figure.radius * (x * sine + y * cosine),
        )
        for x, y in corners
    ]
