"""Owns the text of given token ids, specials by name; knows no answers and nothing hidden in them."""

from collections.abc import Iterable

from service.prompt.tokenizer import Tokenizer


def decode_tokens(tokenizer: Tokenizer, token_ids: Iterable[int]) -> str:
    """Text of all ids together; what is no UTF-8 as U+FFFD, one for each run that began a character."""
    return b"".join(map(tokenizer.piece_bytes, token_ids)).decode("utf-8", "replace")


def token_string(tokenizer: Tokenizer, token_id: int) -> str:
    """Text of one id; bytes that are only a part of a character in sentencepiece's notation: <0xE4>."""
    data = tokenizer.piece_bytes(token_id)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return "".join(f"<0x{byte:02X}>" for byte in data)
