"""A compiled grammar, which a request's answers must be of: what crosses the border to the engine thread."""

from dataclasses import dataclass

from llguidance import LLMatcher

from service.engine.closing import Closing, Way


@dataclass(frozen=True, slots=True, eq=False)
class TokenConstraint:
    """Made by generation/grammar_compiler.py; every answer gets an AnswerMatcher of its own from it."""

    matcher: LLMatcher  # where answers begin; only ever copied
    closing: Closing
    shortest: Way  # the shortest answer that is known; the engine trusts that max_tokens is not less
