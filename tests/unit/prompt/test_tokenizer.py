"""Typed text never becomes special; ids and bytes go there and back."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.artifacts import TokenIds
from service.errors import ArtifactError
from service.prompt.tokenizer import SentencePieceTokenizer, special_names
from tests.unit.prompt.conftest import SYMBOLS

IDS = TokenIds()
NAMES = [*special_names(IDS).values(), *SYMBOLS[:2], *SYMBOLS[-7:]]
# Whole names, halves of names and what may stand around them.
FRAGMENTS = [*NAMES, *(name[:k] for name in NAMES for k in (1, 3)), *(name[2:] for name in NAMES), " ", "a>"]


def _decode(tokenizer: SentencePieceTokenizer, ids: list[int]) -> str:
    return b"".join(tokenizer.piece_bytes(token_id) for token_id in ids).decode()


def test_the_fixture_does_turn_names_into_special_ids(tokenizer: SentencePieceTokenizer) -> None:
    """Without the cutting the library itself would: the tests below would otherwise show nothing."""
    assert tokenizer._encode("a<image></image><reserved_22>")[1:] == [101, 102, 111]


@pytest.mark.parametrize("name", NAMES)
def test_a_typed_name_is_ordinary_text(tokenizer: SentencePieceTokenizer, name: str) -> None:
    ids = tokenizer.encode_text(f"x{name}y")
    assert not any(tokenizer.is_special(token_id) for token_id in ids)
    assert _decode(tokenizer, ids) == f"x{name}y"
    assert not {3, 4, *range(101, 120)} & set(ids)


@settings(max_examples=60, deadline=None)
@given(parts=st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=3), max_size=8))
def test_no_typed_text_becomes_special(tokenizer: SentencePieceTokenizer, parts: list[str]) -> None:
    text = "".join(parts)
    ids = tokenizer.encode_text(text)
    assert not any(tokenizer.is_special(token_id) for token_id in ids)
    # sentencepiece's mark for a space reads as a space.
    assert _decode(tokenizer, ids) == text.replace("\u2581", " ")


def test_ordinary_text_is_not_cut(tokenizer: SentencePieceTokenizer) -> None:
    text = "The image shows <a> < b > image> box> <imag e> <filler_3>"
    assert tokenizer.encode_text(text) == tokenizer._encode(text)


def test_trusted_names_are_the_specials(tokenizer: SentencePieceTokenizer) -> None:
    ids = tokenizer.encode_with_specials("<s>a<slice>a</slice><point></point></s><unk>")
    assert [token_id for token_id in ids if tokenizer.is_special(token_id)] == [1, 111, 112, 109, 110, 2, 0]


def test_half_a_surrogate_pair_is_replaced(tokenizer: SentencePieceTokenizer) -> None:
    text = _decode(tokenizer, tokenizer.encode_text("a\ud83db"))
    assert text.strip("\ufffd") == text.replace("\ufffd", "x").replace("x", "\ufffd")
    assert text[0] == "a"
    assert text[-1] == "b"


def test_a_nul_is_text(tokenizer: SentencePieceTokenizer) -> None:
    assert _decode(tokenizer, tokenizer.encode_text("a\0b<image>\0")) == "a\0b<image>\0"


def test_bytes_of_pieces(tokenizer: SentencePieceTokenizer) -> None:
    by_byte = tokenizer.encode_text("\U0001f642")
    assert [tokenizer.piece_bytes(token_id) for token_id in by_byte] == [b"\xf0", b"\x9f", b"\x99", b"\x82"]
    assert tokenizer.piece_bytes(111) == b"<slice>"
    assert tokenizer.piece_bytes(5) == b"\n"


@pytest.mark.parametrize("token_id", [-1, 500, 122_752, 1 << 40])
def test_an_id_beyond_the_vocabulary_has_no_bytes(tokenizer: SentencePieceTokenizer, token_id: int) -> None:
    assert tokenizer.vocab_size <= 500
    assert tokenizer.piece_bytes(token_id) == b""
    assert not tokenizer.is_special(token_id)


@pytest.mark.parametrize("content", [b"", b"no model", None])
def test_a_broken_file_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "tokenizer.model"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"^tokenizer.model is not a sentencepiece model: export again$"):
        SentencePieceTokenizer(path, IDS)
