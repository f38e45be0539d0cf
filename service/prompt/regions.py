"""Owns the places an answer marks in an image: <box>, <quad> and <point>, and the <ref> that names them.

The marks are tokens, never text, and the numbers behind them thousandths of the image's width and height: so
the model's authors have it (docs/decisions/0014-grounding.md). Knows no image and no visible text.
"""

import re
from dataclasses import dataclass
from typing import Literal

from service.artifacts import TokenIds
from service.prompt.tokenizer import Tokenizer

Shape = Literal["box", "quad", "point"]

_NUM_NUMBERS: dict[Shape, int] = {"box": 4, "quad": 8, "point": 2}
_NUMBERS = re.compile(r" *\d{1,4}(?: +\d{1,4})* *", re.ASCII)
_SCALE = 1000


@dataclass(frozen=True, slots=True)
class Region:
    """A place as the model gave it."""

    shape: Shape
    per_mille: tuple[int, ...]  # x and y in turn, 0 to 1000 of width and height; a box's top left first
    label: str | None  # of the <ref> directly in front of it


class RegionReader:
    """Reads the regions of one answer from its token ids; what is malformed is left out.

    A <ref> names the shapes that follow it with nothing but whitespace between.
    """

    def __init__(self, tokenizer: Tokenizer, token_ids: TokenIds) -> None:
        self._tokenizer = tokenizer
        self._pad = token_ids.pad
        self._begins: dict[int, Shape | Literal["ref"]] = {
            token_ids.ref_start: "ref",
            token_ids.box_start: "box",
            token_ids.quad_start: "quad",
            token_ids.point_start: "point",
        }
        self._ends = {
            token_ids.ref_end: "ref",
            token_ids.box_end: "box",
            token_ids.quad_end: "quad",
            token_ids.point_end: "point",
        }
        self._open: Shape | Literal["ref"] | None = None
        self._inside = b""  # since the mark that is open
        self._label: str | None = None
        self._regions: list[Region] = []

    @property
    def regions(self) -> tuple[Region, ...]:
        """Those that are complete, in order."""
        return tuple(self._regions)

    def push(self, token_id: int) -> None:
        """Take the answer's next id."""
        if token_id == self._pad:
            return
        if not self._tokenizer.is_special(token_id):
            self._push_text(self._tokenizer.piece_bytes(token_id))
        elif token_id in self._begins:
            self._begin(self._begins[token_id])
        else:
            self._end(self._ends.get(token_id))

    def _push_text(self, data: bytes) -> None:
        if self._open is not None:
            self._inside += data
        elif data.strip():
            self._label = None

    def _begin(self, mark: Shape | Literal["ref"]) -> None:
        if self._open is not None or mark == "ref":  # marks do not nest: what was open is broken
            self._label = None
        self._open, self._inside = mark, b""

    def _end(self, mark: str | None) -> None:
        opened, self._open = self._open, None
        if mark is None or mark != opened:
            self._label = None
        elif opened == "ref":
            self._label = _read_label(self._inside)
        elif opened is not None:
            numbers = _read_numbers(self._inside, opened)
            if numbers is not None:
                self._regions.append(Region(opened, numbers, self._label))


def _read_label(data: bytes) -> str | None:
    try:
        return data.decode("utf-8").strip() or None
    except UnicodeDecodeError:
        return None


def _read_numbers(data: bytes, shape: Shape) -> tuple[int, ...] | None:
    text = data.decode("utf-8", "replace")
    if not _NUMBERS.fullmatch(text):
        return None
    numbers = tuple(map(int, text.split()))
    if len(numbers) != _NUM_NUMBERS[shape] or max(numbers) > _SCALE:
        return None
    if shape == "box" and (numbers[0] > numbers[2] or numbers[1] > numbers[3]):
        return None
    return numbers
