"""Owns the random scenes the model learns from: what is drawn where, and how large; asks nothing about them.

Sizes of texts are chosen by what the model will see of them: `FontRange` is in pixels of the overview or of
the slices.
"""

import math
from dataclasses import dataclass, replace

from numpy.random import Generator

from demo_model.palette import CHARACTERS, COLOURS, PLACES, SHAPES, Rgb
from demo_model.scene import FONTS, Background, Figure, Scene, Text, ink
from service.artifacts import ImageConfig
from service.vision.slicing import SlicePlan, plan_slices

_TRIES = 40
_MIN_CONTRAST = 75.0  # of a shape to the background, in RGB space
_TEXT_CONTRAST = 120.0
_MARGIN = 0.035  # of the image, kept free between a thing's centre and the border of its place
_LEGIBLE = (18.0, 48.0)  # font size in the overview
_SMALL = (18.0, 27.0)  # font size in the slices
_TOO_SMALL = 11.0  # font size in the overview of what only the slices show
_SMALL_SIDES = (112.0, 170.0)  # pixels: the overview alone, or with four slices at most
_PAGE_TEXTS = 40
_TEXTURES = ("noise", "gradient", "stripes")


@dataclass(frozen=True, slots=True)
class Sizes:
    """The images' sizes in pixels."""

    min_side: int = 60
    max_side: int = 1500
    usual_max: int = 640  # of most
    share_above: float = 0.08
    aspect_spread: float = 0.4  # of the natural logarithm of width / height
    max_aspect: float = 6.0


class Layouts:
    """Draws up scenes from one random stream."""

    def __init__(
        self,
        rng: Generator,
        image_config: ImageConfig,
        sizes: Sizes,
        off_seams: float = 0.85,
        small_share: float = 0.0,
    ) -> None:
        self._rng = rng
        self._image_config = image_config
        self._sizes = sizes
        self._off_seams = off_seams
        self._small_share = small_share

    def one_figure(self, max_side: float | None = None) -> Scene:
        """One shape of any size anywhere."""
        scene = self._empty(max_side=max_side or self._often_small())
        share = self._rng.uniform(0.22, 0.92)
        return self._with_figures(scene, [self._kind()], share)

    def figures(self) -> Scene:
        """Two to six different shapes."""
        scene = self._empty(max_side=self._often_small())
        kinds: list[tuple[str, str]] = []
        for _ in range(int(self._rng.integers(2, 7))):
            kind = self._kind()
            if kind not in kinds:
                kinds.append(kind)
        return self._with_figures(scene, kinds, self._rng.uniform(0.15, 0.3))

    def counted(self) -> Scene:
        """Up to four of one kind among others, which share its colour or its shape as often as not."""
        scene = self._empty(max_side=self._often_small())
        colour, shape = self._kind()
        kinds = [(colour, shape)] * int(self._rng.integers(1, 5))
        for _ in range(int(self._rng.integers(0, 5))):
            other = self._kind()
            roll = self._rng.random()
            if roll < 0.3:
                other = (colour, other[1])
            elif roll < 0.6:
                other = (other[0], shape)
            if other != (colour, shape):
                kinds.append(other)
        self._rng.shuffle(kinds)
        return self._with_figures(scene, [(str(a), str(b)) for a, b in kinds], self._rng.uniform(0.15, 0.27))

    def large_text(self, max_side: float | None = None) -> Scene:
        """One text the overview shows well."""
        scene = self._empty(max_side=max_side or self._often_small())
        return self._with_texts(scene, 1, small=0.0)

    def small_text(self) -> Scene:
        """One text only the slices show."""
        scene = self._empty(min_side=190)
        return self._with_texts(scene, 1, small=1.0)

    def placed_texts(self) -> Scene:
        """Two to four texts at different places."""
        scene = self._empty(min_side=190)
        return self._with_texts(scene, int(self._rng.integers(2, 5)), small=0.8)

    def placed_large_texts(self) -> Scene:
        """Two or three texts at different places, which the overview shows."""
        scene = self._empty(max_side=self._often_small())
        return self._with_texts(scene, int(self._rng.integers(2, 4)), small=0.0)

    def figure_and_text(self) -> Scene:
        """One to three shapes and one text."""
        scene = self._empty(min_side=120)
        kinds = [self._kind() for _ in range(int(self._rng.integers(1, 4)))]
        scene = self._with_figures(scene, list(dict.fromkeys(kinds)), self._rng.uniform(0.2, 0.35))
        return self._with_texts(scene, 1, small=0.5 if max(scene.width, scene.height) > 230 else 0.0)

    def page(self) -> Scene:
        """Lines of text all over: many characters to learn from at once; no question is about it."""
        rng = self._rng
        scene = self._empty()
        plan = plan_slices(scene.width, scene.height, self._image_config)
        texts: list[Text] = []
        y = rng.uniform(0, 10)
        while True:
            size = self._font_size(scene, plan, small=plan.grid is not None and rng.random() < 0.75)
            font = self._font()
            x = rng.uniform(0, 3 * size)
            while len(texts) < _PAGE_TEXTS:
                chosen = self._ink(scene.background.rgb, contrast=_TEXT_CONTRAST)
                characters = self.code(1, 5)
                left, top, right, bottom = ink(characters, font, size)
                if chosen is None or x + right - left > scene.width or y + bottom - top > scene.height:
                    break
                texts.append(Text(characters, chosen[1], font, size, round(x), round(y)))
                x += right - left + size * rng.uniform(0.5, 2.5)
            y += size * rng.uniform(1.0, 2.2)
            if y > scene.height - size / 2 or len(texts) >= _PAGE_TEXTS:
                return replace(scene, texts=tuple(texts))

    def crowd(self) -> Scene:
        """As many shapes as find room; no question is about them."""
        scene = self._empty()
        kinds = [self._kind() for _ in range(int(self._rng.integers(6, 16)))]
        return self._with_figures(scene, kinds, self._rng.uniform(0.15, 0.22))

    def code(self, low: int = 1, high: int = 4) -> str:
        """`low` to `high` random characters."""
        return "".join(self._rng.choice(list(CHARACTERS), size=int(self._rng.integers(low, high + 1))))

    def _often_small(self) -> float | None:
        """What the overview alone shows is learned from small images: they have few slices."""
        if self._rng.random() >= self._small_share:
            return None
        return _SMALL_SIDES[0] if self._rng.random() < 0.6 else _SMALL_SIDES[1]

    def _kind(self) -> tuple[str, str]:
        return str(self._rng.choice(list(COLOURS))), str(self._rng.choice(SHAPES))

    def _empty(self, min_side: float | None = None, max_side: float | None = None) -> Scene:
        sizes, rng = self._sizes, self._rng
        low = min_side or sizes.min_side
        high = max_side or sizes.usual_max
        if max_side is None and rng.random() < sizes.share_above:
            low, high = sizes.usual_max, sizes.max_side
        side = math.exp(rng.uniform(math.log(low), math.log(high)))
        spread = rng.normal(0, sizes.aspect_spread)
        limit = math.log(sizes.max_aspect)
        ratio = math.exp(max(-limit, min(limit, spread)))
        width = min(max(round(side * math.sqrt(ratio)), sizes.min_side), sizes.max_side)
        height = min(max(round(side / math.sqrt(ratio)), sizes.min_side), sizes.max_side)
        return Scene(width, height, self._background())

    def _background(self) -> Background:
        rng = self._rng
        roll = rng.random()
        if roll < 0.35:
            level = int(rng.integers(235, 256)) if roll < 0.15 else 255
            rgb = (level, level, level)
        elif roll < 0.8:
            r, g, b = (int(v) for v in rng.integers(175, 256, 3))
            rgb = (r, g, b)
        elif roll < 0.9:
            r, g, b = (int(v) for v in rng.integers(0, 70, 3))
            rgb = (r, g, b)
        else:
            r, g, b = (int(v) for v in rng.integers(70, 180, 3))
            rgb = (r, g, b)
        if rng.random() < 0.5:
            return Background(rgb)
        return Background(rgb, str(rng.choice(_TEXTURES)), float(rng.uniform(3, 9)))

    def _ink(
        self, background: Rgb, colour: str | None = None, contrast: float = _MIN_CONTRAST
    ) -> tuple[str, Rgb] | None:
        """A colour's name and value that stand out, of the name given or of any."""
        for _ in range(_TRIES):
            name = colour or str(self._rng.choice(list(COLOURS)))
            base = COLOURS[name][int(self._rng.integers(len(COLOURS[name])))]
            r, g, b = (min(max(v + int(self._rng.integers(-12, 13)), 0), 255) for v in base)
            if math.dist((r, g, b), background) > contrast:
                return name, (r, g, b)
        return None

    def _with_figures(self, scene: Scene, kinds: list[tuple[str, str]], share: float) -> Scene:
        """As many of the shapes as find room; `share` is the diameter of the shorter side."""
        rng = self._rng
        plan = plan_slices(scene.width, scene.height, self._image_config)
        least = 8.5 * scene.width / plan.overview[0]  # 17 px across in the overview
        figures: list[Figure] = []
        side = min(scene.width, scene.height)
        for colour, shape in kinds:
            chosen = self._ink(scene.background.rgb, colour)
            if chosen is None:
                continue
            for _ in range(_TRIES):
                radius = min(max(side * share / 2 * rng.uniform(0.75, 1.15), least), side / 2 - 1)
                x = rng.uniform(radius, scene.width - radius)
                y = rng.uniform(radius, scene.height - radius)
                if not _clear_of_borders(x / scene.width, y / scene.height):
                    continue
                if any(math.hypot(x - f.x, y - f.y) < 1.08 * (radius + f.radius) for f in figures):
                    continue
                turn = float(rng.uniform(-0.2, 0.2)) if rng.random() < 0.5 else 0.0
                figures.append(Figure(shape, colour, chosen[1], x, y, radius, turn))
                break
        return replace(scene, figures=tuple(figures))

    def _with_texts(self, scene: Scene, count: int, small: float) -> Scene:
        plan = plan_slices(scene.width, scene.height, self._image_config)
        texts: list[Text] = []
        places: list[str] = []
        for _ in range(count):
            text = self._text(scene, plan, texts, places, small=self._rng.random() < small)
            if text is not None:
                texts.append(text)
                places.append(scene.place(*text.centre))
        return replace(scene, texts=tuple(texts))

    def _text(
        self, scene: Scene, plan: SlicePlan, others: list[Text], taken: list[str], *, small: bool
    ) -> Text | None:
        rng = self._rng
        chosen = self._ink(scene.background.rgb, contrast=_TEXT_CONTRAST)
        if chosen is None:
            return None
        font = self._font()
        off_seams = rng.random() < self._off_seams
        wanted = [place for place in PLACES if place not in taken]
        characters = self.code(1, 4)
        for attempt in range(_TRIES):
            if attempt > _TRIES // 2:  # there may be room for a shorter one
                characters = self.code(1, 4)
            size = self._font_size(scene, plan, small=small)
            left, top, right, bottom = ink(characters, font, size)
            width, height = right - left, bottom - top
            room_x, room_y = scene.width - width - 2, scene.height - height - 2
            if room_x <= 0 or room_y <= 0:
                continue
            # a place first, so that all nine are as frequent; a text too long for it goes anywhere
            target = str(rng.choice(wanted))
            column, row = PLACES.index(target) % 3, PLACES.index(target) // 3
            x = scene.width * (column + rng.uniform(0.05, 0.95)) / 3 - width / 2
            y = scene.height * (row + rng.uniform(0.05, 0.95)) / 3 - height / 2
            x, y = min(max(x, 1), room_x + 1), min(max(y, 1), room_y + 1)
            text = Text(characters, chosen[1], font, size, round(x), round(y))
            centre_x, centre_y = text.centre
            if not _clear_of_borders(centre_x / scene.width, centre_y / scene.height):
                continue
            if scene.place(centre_x, centre_y) in taken or _overlaps(text, scene, others):
                continue
            if plan.grid and off_seams and attempt < _TRIES - 5 and _crosses_seam(text, scene, plan.grid):
                continue
            return text
        return None

    def _font(self) -> str | None:
        return FONTS[int(self._rng.choice(len(FONTS), p=(0.6, 0.2, 0.2)))]

    def _font_size(self, scene: Scene, plan: SlicePlan, *, small: bool) -> int:
        overview_scale = plan.overview[0] / scene.width
        if not small or plan.refined is None:
            low, high = _LEGIBLE
            return max(8, round(math.exp(self._rng.uniform(math.log(low), math.log(high))) / overview_scale))
        slice_scale = plan.refined[0] / scene.width
        low, high = (limit / slice_scale for limit in _SMALL)
        high = max(low, min(high, _TOO_SMALL / overview_scale))
        return max(8, round(self._rng.uniform(low, high)))


def _clear_of_borders(x: float, y: float) -> bool:
    """Whether a point is plainly inside one place; both coordinates in 0..1."""
    return all(abs(value - border) > _MARGIN for value in (x, y) for border in (1 / 3, 2 / 3))


def _overlaps(text: Text, scene: Scene, others: list[Text]) -> bool:
    left, top, right, bottom = text.box
    gap = text.size / 3
    for figure in scene.figures:
        near_x = min(max(figure.x, left), right)
        near_y = min(max(figure.y, top), bottom)
        if math.hypot(figure.x - near_x, figure.y - near_y) < figure.radius + gap / 2:
            return True
    for other in others:
        a, b, c, d = other.box
        if left - gap < c and a < right + gap and top - gap < d and b < bottom + gap:
            return True
    return False


def _crosses_seam(text: Text, scene: Scene, grid: tuple[int, int]) -> bool:
    left, top, right, bottom = text.box
    columns, rows = grid
    across = any(left - 1 < scene.width * n / columns < right + 1 for n in range(1, columns))
    return across or any(top - 1 < scene.height * n / rows < bottom + 1 for n in range(1, rows))
