"""Owns the way from generated ids back to text, as they come; knows no stop strings and no requests.

The rules are those of `_decode_text` in openbmb/MiniCPM-V-2 modeling_minicpmv.py, held at every cut of the
stream, and the display rules of its demo for `<ref>` and `<box>`.
"""

import codecs
from collections.abc import Iterable

from service.artifacts import TokenIds
from service.prompt.tokenizer import Tokenizer


def _replace_each_byte(error: UnicodeError) -> tuple[str, int]:
    # sentencepiece replaces every invalid byte; Python's "replace" every run that began a character.
    assert isinstance(error, UnicodeDecodeError)
    return "\ufffd" * (error.end - error.start), error.end


codecs.register_error("replace-each-byte", _replace_each_byte)


class AnswerTrim:
    """Strips a text that comes in pieces: joined, what comes out equals `"".join(pieces).strip()`."""

    def __init__(self) -> None:
        self._started = False
        self._held = ""  # whitespace that is dropped if nothing follows

    def push(self, text: str) -> str:
        """What of the text so far is surely not the whitespace at its end, and new."""
        if not self._started:
            text = text.lstrip()
            self._started = bool(text)
        text = self._held + text
        visible = text.rstrip()
        self._held = text[len(visible) :]
        return visible


class Detokenizer:
    """Text of one answer from its token ids; push() what comes, flush() once at the end.

    Never returns half a character. With `skip_special_tokens`, specials have no text, `<ref>` marks vanish
    and `<box>` vanishes with all it encloses; an unclosed box's text comes with flush(). Without, specials
    show their names. The pad id, one leading bos and one trailing eos never show. `strip` removes the
    whitespace around the whole answer.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        token_ids: TokenIds,
        *,
        skip_special_tokens: bool = True,
        strip: bool = True,
    ) -> None:
        self._tokenizer = tokenizer
        self._token_ids = token_ids
        self._skip_special_tokens = skip_special_tokens
        self._trim = AnswerTrim() if strip else None
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace-each-byte")
        self._started = False
        self._eos_held = False  # the last id was eos: dropped if it stays the last
        self._box: list[str] | None = None  # text since an open <box>

    def push(self, token_ids: Iterable[int]) -> str:
        """Visible text these ids add."""
        return self._trimmed("".join([self._step(token_id) for token_id in token_ids]))

    def flush(self) -> str:
        """The rest: an incomplete character as U+FFFD, the text of a box that was never closed."""
        text = self._emit(self._utf8.decode(b"", final=True))
        if self._box is not None:
            text, self._box = "".join(self._box), None
        return self._trimmed(text)

    def _step(self, token_id: int) -> str:
        ids = self._token_ids
        if token_id == ids.pad:
            return ""
        text = self._special(ids.eos) if self._eos_held else ""
        self._eos_held = token_id == ids.eos
        leading, self._started = not self._started, True
        if self._eos_held or (leading and token_id == ids.bos):
            return text
        if self._tokenizer.is_special(token_id):
            return text + self._special(token_id)
        return text + self._emit(self._utf8.decode(self._tokenizer.piece_bytes(token_id)))

    def _special(self, token_id: int) -> str:
        text = self._emit(self._utf8.decode(b"", final=True))  # a character does not reach across a special
        if not self._skip_special_tokens:
            return text + self._tokenizer.piece_bytes(token_id).decode()
        if token_id == self._token_ids.box_start and self._box is None:
            self._box = []
        elif token_id == self._token_ids.box_end:
            self._box = None
        return text

    def _emit(self, text: str) -> str:
        if self._box is None:
            return text
        self._box.append(text)
        return ""

    def _trimmed(self, text: str) -> str:
        return self._trim.push(text) if self._trim else text
