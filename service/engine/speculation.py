"""Holds guesses of a sequence's next tokens against what is drawn; knows no cache and does not guess.

Drawing goes token by token through the sampler, as it would without a guess, so penalties, masks and lengths
act on every one: a guess decides only how many tokens one step can draw.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from service.engine.sampler import FAILED, Sampler
from service.engine.sequence import Sequence
from service.engine.sequence_group import SequenceGroup
from service.engine.token_events import FinishReason, TokenLogprobs


@dataclass(slots=True, eq=False)
class Guess:
    """A sequence in one step, its guessed tokens, and what came of them."""

    group: SequenceGroup
    sequence: Sequence
    first_row: int  # of the logits: after the last token that is certain; one more for each guessed token
    token_ids: list[int]
    drawn: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    failed: bool = False  # the row after what was drawn is not finite


def follow(guesses: Iterable[Guess], logits: NDArray[np.float32], sampler: Sampler) -> None:
    """Draw along each guess, and one token more, until it turns out otherwise or the sequence ends.

    `logits` [rows, vocab_size]. The guesses' sequences take what is drawn.
    """
    going, position = list(guesses), 0
    while going:
        rows = [guess.first_row + position for guess in going]
        states = [guess.sequence.sampler_state for guess in going]
        if position:  # the first masks were prepared beside the batch
            for state in states:
                if state.matcher is not None:
                    state.matcher.prepare()
        tokens, logprobs = sampler.sample_with_logprobs(logits[rows], states)
        for place, (guess, token) in enumerate(zip(going, tokens.tolist(), strict=True)):
            _take(guess, token, logprobs.get(place))
        position += 1
        going = [guess for guess in going if _goes_on(guess)]


def _take(guess: Guess, token_id: int, logprobs: TokenLogprobs | None) -> None:
    if token_id == FAILED:
        guess.failed = True
        return
    guess.drawn.append(token_id)
    if logprobs is not None:
        guess.logprobs.append(logprobs)
    guess.finish_reason = guess.sequence.append(token_id)


def _goes_on(guess: Guess) -> bool:
    """Whether what was drawn last was guessed, so that the next row follows it."""
    last = len(guess.drawn) - 1
    if guess.failed or guess.finish_reason is not None or last == len(guess.token_ids):
        return False
    return guess.drawn[last] == guess.token_ids[last]
