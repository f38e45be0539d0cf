"""Answers come out whole: characters, specials, boxes and the whitespace around them."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.artifacts import TokenIds
from service.prompt.detokenizer import AnswerTrim, Detokenizer
from service.prompt.tokenizer import special_names

IDS = TokenIds()
NAMES = special_names(IDS)
REF, REF_END, BOX, BOX_END = IDS.ref_start, IDS.ref_end, IDS.box_start, IDS.box_end


class ByteTokenizer:
    """One id per byte, from 200 on."""

    vocab_size = 456

    def encode_text(self, text: str) -> list[int]:
        return [byte + 200 for byte in text.encode()]

    def piece_bytes(self, token_id: int) -> bytes:
        return bytes([token_id - 200]) if token_id >= 200 else NAMES[token_id].encode()

    def is_special(self, token_id: int) -> bool:
        return token_id in NAMES


def ids_of(*items: str | int | bytes) -> list[int]:
    ids: list[int] = []
    for item in items:
        data = item.encode() if isinstance(item, str) else item
        ids += [data] if isinstance(data, int) else [byte + 200 for byte in data]
    return ids


def stream(ids: list[int], *, skip: bool = True, strip: bool = True) -> list[str]:
    detokenizer = Detokenizer(ByteTokenizer(), IDS, skip_special_tokens=skip, strip=strip)
    return [*(detokenizer.push([token_id]) for token_id in ids), detokenizer.flush()]


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        (("hi",), "hi"),
        ((), ""),
        ((1,), ""),
        ((1, 2), ""),
        ((1, "hi", 2), "hi"),
        ((0, 1, 0, "h", 0, "i", 2, 0), "hi"),
        (("  a  b \n", 2), "a  b"),
        ((1, 1, "a", 2, 2), "a"),
        (("a", 2, "b"), "ab"),
        (("a", 101, 102, 111, 112, 109, "b"), "ab"),
        ((REF, "cat", REF_END, BOX, "1 2 3 4", BOX_END, " sat"), "cat sat"),
        ((BOX, "1", BOX_END, "a", BOX, "2", BOX_END, "b"), "ab"),
        ((BOX, "1", BOX, "2", BOX_END, "b"), "b"),
        ((BOX, "1", BOX, "2"), "12"),
        (("a", BOX_END, "b"), "ab"),
        (("a", BOX, "1 2", 2), "a1 2"),
        (("a ", BOX, " 1 ", REF, "2 "), "a  1 2"),
        (("a", b"\xe4\xbd", "b"), "a\ufffd\ufffdb"),
        (("a", b"\xe4\xbd"), "a\ufffd\ufffd"),
        (("a", b"\xe4", 101, b"\xbd\xa0"), "a\ufffd\ufffd\ufffd"),
        (("a", b"\xff\xed\xa0\x80"), "a" + "\ufffd" * 4),
    ],
)
def test_answers(items: tuple[str | int | bytes, ...], expected: str) -> None:
    ids = ids_of(*items)
    assert "".join(stream(ids)) == expected
    whole = Detokenizer(ByteTokenizer(), IDS)
    assert whole.push(ids) + whole.flush() == expected


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ((1, "a", 2, 0), "a"),
        ((1, 1, "a", 2, 2), "<s>a</s>"),
        ((REF, "cat", REF_END, BOX, "1 2", BOX_END, 2), "<ref>cat</ref><box>1 2</box>"),
        (("a", b"\xe4", 112), "a\ufffd</slice>"),
    ],
)
def test_specials_can_be_shown(items: tuple[str | int | bytes, ...], expected: str) -> None:
    assert "".join(stream(ids_of(*items), skip=False)) == expected


def test_text_leaves_at_once() -> None:
    pieces = stream(ids_of("a", "\u4f60", " ", "b", BOX, "1", BOX_END, "c"))
    assert pieces == ["a", "", "", "\u4f60", "", " b", "", "", "", "c", ""]


def test_whitespace_can_be_kept() -> None:
    assert stream(ids_of(" a "), strip=False) == [" ", "a", " ", ""]


Items = st.lists(
    st.sampled_from([0, 1, 2, 101, REF, REF_END, BOX, BOX_END])
    | st.sampled_from([" ", "a", "\n", "é", "\u4f60", "\U0001f642"])
    | st.binary(min_size=1, max_size=2),
    max_size=20,
)


@settings(max_examples=60, deadline=None)
@given(items=Items, data=st.data())
def test_streamed_equals_whole_equals_simple(items: list[str | int | bytes], data: st.DataObject) -> None:
    ids = ids_of(*items)
    detokenizer = Detokenizer(ByteTokenizer(), IDS)
    pieces, at = [], 0
    while at < len(ids):
        size = data.draw(st.integers(1, 5))
        pieces.append(detokenizer.push(ids[at : at + size]))
        at += size
    pieces.append(detokenizer.flush())
    text = "".join(pieces)
    assert text == _simple_answer(ids)
    assert text == text.strip()
    for piece in pieces:
        piece.encode("utf-8")


def _simple_answer(ids: list[int]) -> str:
    """The same on the whole answer at once, with a private-use character for every special."""
    marks = {token_id: chr(0xE000 + token_id) for token_id in NAMES}
    text, stretch = "", b""
    for token_id in [token_id for token_id in ids if token_id != IDS.pad]:
        if token_id in marks:
            text += _replace_bytes(stretch) + marks[token_id]
            stretch = b""
        else:
            stretch += bytes([token_id - 200])
    text += _replace_bytes(stretch)
    text = re.sub(f"{marks[BOX]}.*?{marks[BOX_END]}", "", text, flags=re.DOTALL)
    return re.sub("[" + "".join(marks.values()) + "]", "", text).strip()


def _replace_bytes(data: bytes) -> str:
    return re.sub("[\udc80-\udcff]", "\ufffd", data.decode("utf-8", "surrogateescape"))


@settings(max_examples=60, deadline=None)
@given(pieces=st.lists(st.text(alphabet=" \n\u3000ab", max_size=4), max_size=8))
def test_trim_is_strip(pieces: list[str]) -> None:
    trim = AnswerTrim()
    assert "".join(map(trim.push, pieces)) == "".join(pieces).strip()
