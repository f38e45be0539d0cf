"""Finds a short way from anywhere inside a grammar to an end it accepts; knows no model and no request."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from llguidance import LLMatcher

Way = tuple[int, ...]
"""Token ids after which the grammar is content, the id that ends the answer not among them."""

# In order of how soon an answer ends behind them: what closes, what goes on to the next thing, what fills
# a place, what must itself be closed.
_CLASSES = (
    b'}]",:',
    b"0123456789",
    b"@)>;!?=+-*/%&|^~#$_(<`'.",
    b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ",
    b" \n\t\r",
    bytes(range(0x80, 0x100)),  # parts of characters beyond ASCII
    b"\\[{",
)
_QUOTE = ord('"')
_IN_TEXT = b"}x"  # where both are allowed they are text, as perhaps in a string that a quote ends
_DEARER = 4  # a fair step tries so many more tokens than an ordered one
_NUM_SUFFIXES = 4  # how much of a known way one token may have made superfluous


class Closing:
    """The search for ways. It tries single-byte tokens only: enough, for a grammar is one of bytes."""

    def __init__(self, byte_tokens: Mapping[int, int], end_token_id: int) -> None:
        """`byte_tokens`: the token of every byte that has one of its own; `end_token_id` ends an answer."""
        self._end = end_token_id
        classes = [_tokens(kind, byte_tokens) for kind in _CLASSES]
        self._ranked = [token_id for kind in classes for token_id in kind]
        self._fillers = [token_id for kind in classes[1:] for token_id in kind]
        self._class = {token_id: index for index, kind in enumerate(classes) for token_id in kind}
        self._quote = _tokens([_QUOTE], byte_tokens)
        self._in_text = _tokens(_IN_TEXT, byte_tokens)
        # Each finds ways the others do not.
        self._walks = self._ordered_walk, self._fair_walk, partial(self._fair_walk, by_class=False)

    def shortest(self, matcher: LLMatcher, max_tokens: int) -> Way | None:
        """The shortest way the walks find, of at most `max_tokens` tokens. `matcher` stays where it is."""
        shortest = None
        for walk in self._walks:
            way = walk(matcher, (), max_tokens, max_tokens)
            if way is not None:
                shortest, max_tokens = way, len(way) - 1
        return shortest

    def is_way(self, matcher: LLMatcher, token_ids: Sequence[int]) -> bool:
        """Whether the tokens lead from where `matcher` is, and stays, to an end."""
        return matcher.validate_tokens([*token_ids, self._end]) == len(token_ids) + 1

    def find(self, matcher: LLMatcher, known: Way, max_tokens: int, max_steps: int) -> Way | None:
        """A way of at most `max_tokens` tokens, found by walks of at most `max_steps` decisions.

        `known` was a way one token ago; an end of it nearly always is one still. `matcher` stays where it is.
        """
        for walk in self._walks:
            way = walk(matcher, known, max_tokens, max_steps)
            if way is not None:
                return way
        return None

    def _ordered_walk(self, matcher: LLMatcher, known: Way, max_tokens: int, max_steps: int) -> Way | None:
        """The first token in order that is allowed, again and again, until the grammar accepts or a known way
        goes on from here. `[0-9]+x` goes on for ever."""
        matcher, way, quote, tried_quote = matcher.deep_copy(), list[int](), self._quote, False
        for _ in range(max_steps + 1):
            end = self._end_from(matcher, known, max_tokens - len(way))
            if end is not None:
                return (*way, *end)
            step = matcher.compute_ff_tokens()
            if not step:
                is_text = self._is_text(matcher)
                if is_text and tried_quote:
                    quote = []  # it ended no string: it is text itself
                step = _first_allowed(matcher, [*quote, *self._fillers] if is_text else self._ranked)
                tried_quote = is_text and step == quote
            way += step
            if not step or len(way) > max_tokens or not matcher.consume_tokens(step):
                return None
        return None

    def _fair_walk(
        self, matcher: LLMatcher, known: Way, max_tokens: int, max_steps: int, by_class: bool = True
    ) -> Way | None:
        """The same with, of what is allowed, the token taken least so far, or first of all one of the class
        taken least. `[0-9]+x` is done after two tokens, `[0-9]{9}` behind any text never."""
        matcher, way = matcher.deep_copy(), list[int]()
        uses, class_uses = Counter[int](), Counter[int | None]()

        def rank(token_id: int) -> tuple[int, int]:
            by_token = uses[token_id], class_uses[self._class[token_id]]
            return by_token[::-1] if by_class else by_token

        for _ in range(max_steps // _DEARER + 1):
            end = self._end_from(matcher, known, max_tokens - len(way))
            if end is not None:
                return (*way, *end)
            step = matcher.compute_ff_tokens() or _first_allowed(matcher, sorted(self._ranked, key=rank))
            way += step
            if not step or len(way) > max_tokens or not matcher.consume_tokens(step):
                return None
            uses.update(step)
            class_uses.update(map(self._class.get, step))
        return None

    def _end_from(self, matcher: LLMatcher, known: Way, max_tokens: int) -> Way | None:
        """What of a known way leads from where `matcher` is to an end; empty if this is one."""
        if matcher.is_error() or max_tokens < 0:
            return None
        if matcher.is_accepting():
            return ()
        for begin in range(min(_NUM_SUFFIXES, len(known))):
            way = known[begin:]
            if len(way) <= max_tokens and self.is_way(matcher, way):
                return way
        return None

    def _is_text(self, matcher: LLMatcher) -> bool:
        return all(matcher.validate_tokens([token_id]) for token_id in self._in_text)


def _tokens(values: Iterable[int], byte_tokens: Mapping[int, int]) -> list[int]:
    return [byte_tokens[byte] for byte in values if byte in byte_tokens]


def _first_allowed(matcher: LLMatcher, token_ids: Iterable[int]) -> list[int]:
    """One token, or none."""
    return next(([token_id] for token_id in token_ids if matcher.validate_tokens([token_id])), [])
