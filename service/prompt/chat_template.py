"""Owns the model's chat format: a conversation in, token ids with image slots out; knows no pixels.

The format is that of `chat` and `get_slice_image_placeholder` in openbmb/MiniCPM-V-2 modeling_minicpmv.py.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.artifacts import TokenIds
from service.prompt.conversation import Conversation, ImagePart, Role, TextPart, Turn
from service.prompt.tokenizer import Tokenizer

Grid = tuple[int, int]  # (columns, rows)

_ROLE_MARKS: dict[Role, str] = {"user": "<用户>", "assistant": "<AI>"}
# The marks are ordinary pieces: "<" | "AI>" would give the very ids of "<AI>", so the word itself is cut.
_MARK_CUTS = re.compile("(?<=<用)(?=户>)|(?<=<A)(?=I>)")


@dataclass(frozen=True, slots=True)
class ImageSlots:
    """The query_num consecutive slots of one overview or slice."""

    start: int  # index into token_ids
    image_index: int
    slice_index: int  # 0: the overview; then row by row


@dataclass(frozen=True, slots=True, eq=False)
class RenderedPrompt:
    """A prompt as the model was trained on it; slots hold the pad id."""

    token_ids: NDArray[np.int64]  # [num_prompt_tokens]
    image_slots: tuple[ImageSlots, ...]  # in order


class ChatTemplate:
    """Renders conversations; stateless, so any number of requests may share it."""

    def __init__(self, tokenizer: Tokenizer, token_ids: TokenIds, query_num: int) -> None:
        self._tokenizer = tokenizer
        self._token_ids = token_ids
        self._query_num = query_num

    def render(self, conversation: Conversation, grids: Sequence[Grid | None]) -> RenderedPrompt:
        """The whole prompt, from bos to the mark that opens the answer.

        `grids[i]` is (columns, rows) of image i's slices, None if it has none: known from its header alone,
        so the length of the result is exact before any image is decoded.
        """
        prompt = _Prompt(self._tokenizer, self._token_ids, self._query_num)
        for turn in _with_system(conversation):
            prompt.add_trusted(_ROLE_MARKS[turn.role])
            for number, part in enumerate(_arrange(turn.parts)):
                if number:
                    prompt.add_trusted("\n")
                if isinstance(part, TextPart):
                    prompt.add_typed(part.text)
                else:
                    prompt.add_image(part.index, grids[part.index])
        prompt.add_trusted(_ROLE_MARKS["assistant"])
        return prompt.finish()


class _Prompt:
    """Grows by text, specials and slots. Text is encoded in one piece from special to special.

    The original tokenised the whole string, so a role mark and the text beside it must meet the tokenizer
    together; typed text is cut where it imitates a mark.
    """

    def __init__(self, tokenizer: Tokenizer, token_ids: TokenIds, query_num: int) -> None:
        self._tokenizer = tokenizer
        self._special = token_ids
        self._query_num = query_num
        self._ids: list[int] = [token_ids.bos]
        self._slots: list[ImageSlots] = []
        self._text = ""  # not encoded yet

    def add_trusted(self, text: str) -> None:
        self._text += text

    def add_typed(self, text: str) -> None:
        first, *rest = _MARK_CUTS.split(text)
        self._text += first
        for stretch in rest:
            self._encode_text()
            self._text = stretch

    def add_image(self, image_index: int, grid: Grid | None) -> None:
        self._add_slots(image_index, 0)
        if grid is None:
            return
        cols, rows = grid
        self._add_special(self._special.slice_start)
        for row in range(rows):
            if row:
                self.add_trusted("\n")
            for col in range(cols):
                self._add_slots(image_index, 1 + row * cols + col)
        self._add_special(self._special.slice_end)

    def finish(self) -> RenderedPrompt:
        self._encode_text()
        return RenderedPrompt(np.array(self._ids, dtype=np.int64), tuple(self._slots))

    def _add_slots(self, image_index: int, slice_index: int) -> None:
        self._add_special(self._special.image_start)
        self._slots.append(ImageSlots(len(self._ids), image_index, slice_index))
        self._ids += [self._special.pad] * self._query_num
        self._add_special(self._special.image_end)

    def _add_special(self, token_id: int) -> None:
        self._encode_text()
        self._ids.append(token_id)

    def _encode_text(self) -> None:
        if self._text:
            self._ids += self._tokenizer.encode_text(self._text)
            self._text = ""


def _with_system(conversation: Conversation) -> tuple[Turn, ...]:
    """The turns, the system message in front of the first user turn's text: the model has no such role."""
    if not conversation.system:
        return conversation.turns
    system = TextPart(conversation.system)
    turns = list(conversation.turns)
    for index, turn in enumerate(turns):
        if turn.role == "user":
            turns[index] = Turn("user", _insert_before_text(system, turn.parts))
            return tuple(turns)
    return (Turn("user", (system,)), *turns)


def _insert_before_text(
    system: TextPart, parts: tuple[TextPart | ImagePart, ...]
) -> tuple[TextPart | ImagePart, ...]:
    texts = [index for index, part in enumerate(parts) if isinstance(part, TextPart)]
    at = texts[0] if texts else len(parts)
    return (*parts[:at], system, *parts[at:])


def _arrange(parts: tuple[TextPart | ImagePart, ...]) -> list[TextPart | ImagePart]:
    """Images first, then one text, as the model was trained; text between images keeps all in place.

    Neighbouring texts become one before anything is cut, so no mark can be split over two of them.
    """
    images: list[TextPart | ImagePart] = [part for part in parts if isinstance(part, ImagePart)]
    merged = _merge_texts(parts)
    if _text_between_images(merged):
        return merged
    texts = [part.text for part in merged if isinstance(part, TextPart)]
    return [*images, TextPart("\n".join(texts))]


def _text_between_images(parts: list[TextPart | ImagePart]) -> bool:
    at = [index for index, part in enumerate(parts) if isinstance(part, ImagePart)]
    return bool(at) and at[-1] - at[0] >= len(at)


def _merge_texts(parts: tuple[TextPart | ImagePart, ...]) -> list[TextPart | ImagePart]:
    merged: list[TextPart | ImagePart] = []
    for part in parts:
        last = merged[-1] if merged else None
        if isinstance(part, ImagePart):
            merged.append(part)
        elif isinstance(last, TextPart) and part.text:
            merged[-1] = TextPart(f"{last.text}\n{part.text}")
        elif part.text:
            merged.append(part)
    return merged
