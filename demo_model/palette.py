"""Owns the names of what is drawn, colours, shapes, places, characters, in both languages; draws nothing."""

from typing import Literal

Language = Literal["en", "zh"]
Rgb = tuple[int, int, int]

COLOURS: dict[str, tuple[Rgb, ...]] = {
    "red": ((255, 0, 0), (220, 30, 30), (200, 20, 40)),
    "green": ((0, 128, 0), (0, 200, 0), (0, 255, 0), (30, 160, 60)),
    "blue": ((0, 0, 255), (30, 70, 220), (20, 50, 170)),
    "yellow": ((255, 255, 0), (250, 220, 30), (240, 215, 0)),
    "purple": ((128, 0, 128), (130, 50, 180), (150, 30, 190)),
    "orange": ((255, 165, 0), (255, 140, 0), (245, 120, 20)),
    "black": ((0, 0, 0), (25, 25, 25)),
    "pink": ((255, 192, 203), (255, 105, 180), (250, 140, 190)),
}
SHAPES = ("circle", "square", "triangle", "star", "cross", "diamond")
PLACES = (
    *("top left", "top", "top right"),
    *("left", "center", "right"),
    *("bottom left", "bottom", "bottom right"),
)
# Distinct glyphs only: no O, I, S, B, Z, G, Q, which pass for 0, 1, 5, 8, 2, 6 and 0.
CHARACTERS = "ACDEFHJKLMNPRTUVWXY0123456789"

CHINESE = {
    **dict(zip(COLOURS, ("红色", "绿色", "蓝色", "黄色", "紫色", "橙色", "黑色", "粉色"), strict=True)),
    **dict(zip(SHAPES, ("圆形", "方形", "三角形", "星形", "十字", "菱形"), strict=True)),
    **dict(
        zip(
            PLACES,
            ("左上角", "上方", "右上角", "左边", "中间", "右边", "左下角", "下方", "右下角"),
            strict=True,
        )
    ),
}


def named(name: str, language: Language) -> str:
    """The name of a colour, shape or place in a language."""
    return name if language == "en" else CHINESE[name]


def thing(colour: str, shape: str, language: Language) -> str:
    """ "red circle", without an article."""
    return f"{colour} {shape}" if language == "en" else f"{CHINESE[colour]}{CHINESE[shape]}"


def place_at(x: float, y: float) -> str:
    """The place of a point, both coordinates in 0..1: the image's thirds."""
    return PLACES[3 * min(int(y * 3), 2) + min(int(x * 3), 2)]
