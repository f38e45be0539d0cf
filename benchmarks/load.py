"""How many streams, how long and how often: a load that two sides are given in turn. Runs nothing itself."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from benchmarks.rounds import alternate
from benchmarks.streams import StreamTimes, random_prompts

Run = Callable[[Sequence[NDArray[np.int64]], int], list[StreamTimes]]  # prompts, tokens of each answer


@dataclass(frozen=True, slots=True)
class Load:
    """`rounds` times `streams` answers at once."""

    streams: int
    prompt_tokens: int
    tokens: int  # of each answer
    rounds: int

    def __str__(self) -> str:
        return f"{self.rounds} rounds of {self.streams} x ({self.prompt_tokens} + {self.tokens}) tokens"

    def prompts(self, vocab_size: int, number: int) -> list[NDArray[np.int64]]:
        """Those of one round: the same for every side, and for no other round."""
        seed = (self.streams, self.prompt_tokens, number)
        return random_prompts(np.random.default_rng(seed), self.streams, self.prompt_tokens, vocab_size)

    def alternate(self, vocab_size: int, sides: dict[str, Run]) -> dict[str, list[list[StreamTimes]]]:
        """The sides' streams, round by round. What a first run has to set up, a short one does before."""
        warm_up = replace(self, prompt_tokens=self.prompt_tokens + 1).prompts(vocab_size, 0)
        for run in sides.values():
            run(warm_up, 2)
        return alternate(
            self.rounds,
            {name: partial(self._run, run, vocab_size) for name, run in sides.items()},
        )

    def _run(self, run: Run, vocab_size: int, number: int) -> list[StreamTimes]:
        return run(self.prompts(vocab_size, number), self.tokens)
