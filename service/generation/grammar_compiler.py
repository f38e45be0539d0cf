"""Compiles grammars for the model's vocabulary, off the event loop; knows no request and no engine.

The library bounds its own work by the limits below, counted and not timed; whatever goes wrong is the
grammar's fault and a 400 that names its field.
"""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Final

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

from service.engine.closing import Closing, Way
from service.engine.token_constraint import TokenConstraint
from service.errors import InvalidValueError
from service.generation.grammar import Grammar
from service.prompt.tokenizer import Tokenizer

MAX_COMPILE_S = 60.0  # a fuse: the limits below end a compilation long before, on a busy machine too
MAX_SHORTEST_TOKENS = 1024  # of the shortest answer

# Per grammar and, "step", per token: some milliseconds of work at most; a state is some hundred bytes.
_LIMITS: Final = LLParserLimits(
    initial_lexer_fuel=200_000,
    step_lexer_fuel=100_000,
    step_max_items=20_000,
    max_lexer_states=100_000,
    max_grammar_size=50_000,
    verbose_errors=False,
)
_FAULT: Final = (
    "this cannot be compiled: it is not well formed, contradicts itself, is too complex, or uses what "
    "docs/api.md does not list"
)


class GrammarCompiler:
    """Belongs to the event loop; compiles one grammar after another.

    What it makes goes into EngineRequest.constraint, by way of Plan.constraint.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, end_token_id: int) -> None:
        """`vocab_size` is the model's, `end_token_id` what ends an answer."""
        self._vocabulary = _Vocabulary(tokenizer, vocab_size, end_token_id)
        self._turn = asyncio.Semaphore()
        # Its own: in asyncio's, a compilation would wait behind whatever else hangs there.
        self._thread = ThreadPoolExecutor(1, "grammar")

    async def compile(self, grammar: Grammar) -> TokenConstraint:
        """Raises InvalidValueError if it is no grammar, is too large, or no answer of it is found."""
        await self._turn.acquire()
        loop = asyncio.get_running_loop()
        compiling = loop.run_in_executor(self._thread, self._vocabulary.compile, grammar)
        compiling.add_done_callback(self._end_turn)
        try:
            return await asyncio.wait_for(asyncio.shield(compiling), MAX_COMPILE_S)
        except TimeoutError:
            raise InvalidValueError("this takes too long to compile; simplify it", grammar.param) from None

    def matches(self, constraint: TokenConstraint, text: str) -> bool:
        """Whether a whole text is an answer of a grammar. Makes no masks: cheap enough for the event loop."""
        return self._vocabulary.matches(constraint, text)

    def _end_turn(self, compiling: asyncio.Future[TokenConstraint]) -> None:
        """Also of a compilation for which nobody waits any more."""
        self._turn.release()
        if not compiling.cancelled():
            compiling.exception()


class _Vocabulary:
    """The library's view of the tokenizer, made once, when it is first needed."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, end_token_id: int) -> None:
        self._source = tokenizer
        self._vocab_size = vocab_size
        self._end = end_token_id

    def compile(self, grammar: Grammar) -> TokenConstraint:
        """Takes some milliseconds, without the interpreter's lock for most of them."""
        tokenizer, closing = self._tokenizer, self._closing
        try:
            matcher = LLMatcher(tokenizer, grammar.source, log_level=0, limits=_LIMITS)
            matcher.compute_bitmask()  # what only shows at the first token
            shortest = None
            if not matcher.is_error():
                shortest = self._shortest(matcher, grammar)
        except BaseException as error:  # a panic of the library is no Exception
            raise InvalidValueError(_FAULT, grammar.param) from error
        if matcher.is_error():
            raise InvalidValueError(_FAULT, grammar.param)
        if shortest is None:
            raise InvalidValueError(
                f"no answer was found that ends within {MAX_SHORTEST_TOKENS} tokens; simplify it",
                grammar.param,
            )
        return TokenConstraint(matcher, closing, shortest)

    def _shortest(self, matcher: LLMatcher, grammar: Grammar) -> Way | None:
        """The search takes a token for every byte; the model has longer ones."""
        way = self._closing.shortest(matcher, MAX_SHORTEST_TOKENS)
        if way is None:
            return None
        texts = [b"".join(self._bytes[token_id] for token_id in way).decode(), *grammar.answers]
        written = [tuple(self._source.encode_text(text)) for text in texts]
        return min([way, *(ids for ids in written if self._closing.is_way(matcher, ids))], key=len)

    def matches(self, constraint: TokenConstraint, text: str) -> bool:
        try:
            return constraint.closing.is_way(constraint.matcher.deep_copy(), self._source.encode_text(text))
        except BaseException:  # a panic of the library is no Exception
            return False

    @cached_property
    def _bytes(self) -> list[bytes]:
        """Of every token; none for those that answers never hold."""
        known = range(min(self._source.vocab_size, self._vocab_size))
        pieces = [
            b"" if self._source.is_special(token_id) else self._source.piece_bytes(token_id)
            for token_id in known
        ]
        return pieces + [b""] * (self._vocab_size - len(pieces))

    @cached_property
    def _tokenizer(self) -> LLTokenizer:
        return LLTokenizer(TokenizerWrapper(_Pieces(self._bytes, self._end, self._source)))

    @cached_property
    def _closing(self) -> Closing:
        # Of two tokens for one byte the later is the piece, the earlier the byte's stand-in.
        return Closing({b[0]: i for i, b in enumerate(self._bytes) if len(b) == 1}, self._end)


class _Pieces:
    """What TokenizerWrapper asks for."""

    bos_token_id = None

    def __init__(self, pieces: Sequence[bytes], end_token_id: int, source: Tokenizer) -> None:
        self.tokens = pieces
        self.eos_token_id = end_token_id
        self.special_token_ids = [end_token_id]
        self._source = source

    def __call__(self, text: bytes | str) -> list[int]:
        """How the model would write a text that a grammar leaves no choice about."""
        if isinstance(text, bytes):
            text = text.decode()
        return self._source.encode_text(text)
