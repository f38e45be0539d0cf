"""Owns the mapping between text and token ids; knows no roles, no images and no streaming.

The sentencepiece library on the text between specials is exact for this model; other stacks are not.
"""

import re
from pathlib import Path
from typing import Protocol

import sentencepiece

from service.artifacts import TokenIds
from service.errors import ArtifactError

_SPACE = "\u2581"  # sentencepiece's mark for a space
# User-defined pieces that no text means: a model may attach anything to them, so none is ever typed.
_CONTROL_LIKE = re.compile(r"<(reserved_\d+|SEP|CLS)>")


class Tokenizer(Protocol):
    """What the rest of the room needs of a tokenizer."""

    @property
    def vocab_size(self) -> int: ...

    def encode_text(self, text: str) -> list[int]:
        """Ids of a stretch of text; whatever it holds, none of them is special."""
        ...

    def piece_bytes(self, token_id: int) -> bytes:
        """UTF-8 bytes (perhaps part of a character) of one token; the name of a special one."""
        ...

    def is_special(self, token_id: int) -> bool: ...


class SentencePieceTokenizer:
    """The model's own sentencepiece vocabulary, with specials known by id and never by text."""

    def __init__(self, model_path: Path, token_ids: TokenIds) -> None:
        """Read `model_path`; raises ArtifactError if it is no sentencepiece model."""
        self._model = sentencepiece.SentencePieceProcessor()
        try:
            self._model.Load(str(model_path))
        except (OSError, RuntimeError):
            raise ArtifactError(f"{model_path.name} is not a sentencepiece model: export again") from None
        self._names = special_names(token_ids)
        self._vocab_size: int = self._model.vocab_size()
        self._cuts = self._compile_cuts()
        self._specials = re.compile("|".join(re.escape(name) for name in self._names.values()))
        self._pieces: dict[int, bytes] = {}

    @property
    def vocab_size(self) -> int:
        """Size of the sentencepiece vocabulary; the model's may be larger."""
        return self._vocab_size

    def encode_text(self, text: str) -> list[int]:
        """Ids of a stretch of text; never a special one, whatever was typed.

        Names of special pieces the model file would recognise by itself are cut behind their "<".
        """
        ids: list[int] = []
        for stretch in self._cuts.split(text):
            ids += self._encode(stretch)
        return ids

    def encode_with_specials(self, text: str) -> list[int]:
        """Ids of text whose special names mean the specials: for trusted text only."""
        by_name = {name: token_id for token_id, name in self._names.items()}
        ids: list[int] = []
        position = 0
        for match in self._specials.finditer(text):
            ids += [*self._encode(text[position : match.start()]), by_name[match.group()]]
            position = match.end()
        return ids + self._encode(text[position:])

    def piece_bytes(self, token_id: int) -> bytes:
        """UTF-8 bytes of one token, perhaps part of a character; empty for an id beyond the vocabulary."""
        piece = self._pieces.get(token_id)
        if piece is None:
            piece = self._pieces[token_id] = self._read_piece(token_id)
        return piece

    def is_special(self, token_id: int) -> bool:
        """Whether the token stands for more than its text."""
        return token_id in self._names

    def _encode(self, text: str) -> list[int]:
        # JSON can carry half a surrogate pair, which no UTF-8 can.
        whole = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
        ids: list[int] = self._model.EncodeAsIds(whole)
        return ids

    def _read_piece(self, token_id: int) -> bytes:
        if token_id in self._names:
            return self._names[token_id].encode()
        if not 0 <= token_id < self._vocab_size:
            return b""
        piece: str = self._model.IdToPiece(token_id)
        if self._model.IsByte(token_id):  # "<0x0A>"
            return bytes([int(piece[3:5], 16)])
        return piece.replace(_SPACE, " ").encode()

    def _compile_cuts(self) -> re.Pattern[str]:
        """Matches the empty string behind "<" in every name the model file turns into a special id."""
        names = [name for i in range(self._vocab_size) if (name := self._typeable_name(i))]
        if not names:
            return re.compile(r"(?!)")
        return re.compile("(?<=<)(?=" + "|".join(re.escape(name[1:]) for name in names) + ")")

    def _typeable_name(self, token_id: int) -> str | None:
        """The text of a user-defined piece that nobody may type; control pieces are never matched in text."""
        piece: str = self._model.IdToPiece(token_id)
        special = token_id in self._names and not self._model.IsControl(token_id)
        if special and not self._model.IsUnknown(token_id):
            return piece
        return piece if _CONTROL_LIKE.fullmatch(piece) else None


def special_names(token_ids: TokenIds) -> dict[int, str]:
    """The names of tokenizer_config.json by id; the .model file still calls four of them reserved."""
    names = {token_ids.pad: "<unk>", token_ids.bos: "<s>", token_ids.eos: "</s>"}
    for kind in ("image", "ref", "box", "quad", "point", "slice"):
        names[getattr(token_ids, f"{kind}_start")] = f"<{kind}>"
        names[getattr(token_ids, f"{kind}_end")] = f"</{kind}>"
    return names
