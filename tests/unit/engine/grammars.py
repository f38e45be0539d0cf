"""Grammars compiled for a vocabulary as small as the scripted model's: what JSON is made of, some pieces."""

import asyncio
from collections.abc import Sequence

from service.engine.token_constraint import TokenConstraint
from service.generation.grammar import Grammar, json_schema_grammar
from service.generation.grammar_compiler import GrammarCompiler
from tests.unit.engine.scripted_model import EOS, VOCAB_SIZE

_SPECIALS = (b"<unk>", b"<s>", b"</s>")
_BYTES = [bytes([byte]) for byte in b'{}[]":,0123456789abcdefilnrstux-. \xc3\xa9']
_PIECES = ("é".encode(), b'{"', b'":', b'",', b'"a"', b"true", b"false", b"null", b"00", b"],", b"}}")
TOKENS: Sequence[bytes] = (*_SPECIALS, *_BYTES, *_PIECES)


class SmallVocabulary:
    """Tokenizer over TOKENS."""

    vocab_size = len(TOKENS)

    def encode_text(self, text: str) -> list[int]:
        """The longest piece that fits, again and again."""
        rest, ids = text.encode(), []
        while rest:
            token_id = max(
                (i for i in range(len(_SPECIALS), self.vocab_size) if rest.startswith(TOKENS[i])),
                key=lambda i: len(TOKENS[i]),
            )
            ids.append(token_id)
            rest = rest[len(TOKENS[token_id]) :]
        return ids

    def piece_bytes(self, token_id: int) -> bytes:
        return TOKENS[token_id]

    def is_special(self, token_id: int) -> bool:
        return token_id < len(_SPECIALS)


def compiled(grammar: Grammar) -> TokenConstraint:
    assert len(TOKENS) <= VOCAB_SIZE
    return asyncio.run(GrammarCompiler(SmallVocabulary(), VOCAB_SIZE, EOS).compile(grammar))


def schema(**keywords: object) -> TokenConstraint:
    return compiled(json_schema_grammar(keywords, "test"))  # type: ignore[arg-type]


def text_of(token_ids: Sequence[int]) -> bytes:
    """Of an answer, without what ended it."""
    return b"".join(TOKENS[token_id] for token_id in token_ids if token_id != EOS)
