"""The stub tokenizer of the goldens (chat.json, generate.json): one id per character, real special ids."""

import re

from service.artifacts import TokenIds
from service.prompt.tokenizer import special_names

_NAMES = special_names(TokenIds())
_IDS = {name: token_id for token_id, name in _NAMES.items()}
_SPECIALS = re.compile("(" + "|".join(re.escape(name) for name in _NAMES.values()) + ")")


class StubTokenizer:
    """Not reversible: several characters share an id."""

    @property
    def vocab_size(self) -> int:
        return 1000

    def encode_text(self, text: str) -> list[int]:
        """Ids of characters; no id of the stub's text is special."""
        return [5 if char == "\n" else 120 + (ord(char) * 7) % 880 for char in text]

    def encode_trusted(self, text: str) -> list[int]:
        """Ids as the original got them: special names in the text are the specials."""
        ids: list[int] = []
        for stretch in _SPECIALS.split(text):
            ids += [_IDS[stretch]] if stretch in _IDS else self.encode_text(stretch)
        return ids

    def piece_bytes(self, token_id: int) -> bytes:
        """The goldens print answers as numbers: "17 4 …"."""
        return f"{token_id} ".encode()

    def is_special(self, token_id: int) -> bool:
        return token_id in _NAMES
