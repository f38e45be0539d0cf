"""A sentencepiece file that tokenises like the goldens' stub tokenizer, to send whole chats over HTTP.

The stub: specials have their real ids, a newline is 5, any other character c is 120 + (ord(c) * 7) % 880.
As 7 and 880 share no factor, every id stands for one residue of ord(c) modulo 880; a character beyond 880
takes the piece of its residue ("用" that of "H"), which the golden chats do not use.
"""

from pathlib import Path

from sentencepiece import sentencepiece_model_pb2 as sp

VOCAB_SIZE = 1000
_FIRST_CHARACTER_ID = 120
_RESIDUES = VOCAB_SIZE - _FIRST_CHARACTER_ID
_WIDE_CHARACTERS = "用户"
_SPECIALS = ("<image>", "</image>", "<ref>", "</ref>", "<box>", "</box>", "<quad>", "</quad>")
_RENAMED = ("<reserved_20>", "<reserved_21>", "<reserved_22>", "<reserved_23>")
_Piece = sp.ModelProto.SentencePiece


def piece_of(token_id: int) -> str:
    """The text the token stands for; private-use characters for ids the stub gives to no printable one."""
    if token_id == 5:
        return "\n"
    residue = (token_id - _FIRST_CHARACTER_ID) * pow(7, -1, _RESIDUES) % _RESIDUES
    wide = {ord(character) % _RESIDUES: character for character in _WIDE_CHARACTERS}
    if token_id < _FIRST_CHARACTER_ID or residue < 32:
        return chr(0xE000 + token_id)
    return wide.get(residue, chr(residue))


def write_stub_tokenizer(path: Path) -> None:
    """Write a BPE model without merges: every character is its own piece."""
    model = sp.ModelProto()
    model.trainer_spec.model_type = sp.TrainerSpec.BPE
    model.trainer_spec.vocab_size = VOCAB_SIZE
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.add_dummy_prefix = False
    model.normalizer_spec.remove_extra_whitespaces = False
    for token_id in range(VOCAB_SIZE):
        piece, kind = _entry(token_id)
        model.pieces.append(_Piece(piece=piece, score=0.0, type=kind))
    path.write_bytes(model.SerializeToString())


def _entry(token_id: int) -> tuple[str, int]:
    if token_id < 3:
        names = (("<unk>", _Piece.UNKNOWN), ("<s>", _Piece.CONTROL), ("</s>", _Piece.CONTROL))
        return names[token_id]
    if 101 <= token_id <= 112:
        return ((*_SPECIALS, *_RENAMED)[token_id - 101], _Piece.USER_DEFINED)
    if token_id == 5:
        return ("\n", _Piece.USER_DEFINED)
    return (piece_of(token_id).replace(" ", "▁"), _Piece.NORMAL)
