"""A against B: measured in turn within one run and compared round by round. Knows not what A and B are."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

Name = TypeVar("Name")
Figure = TypeVar("Figure")


def alternate(rounds: int, sides: Mapping[Name, Callable[[int], Figure]]) -> dict[Name, list[Figure]]:
    """Run every side once a round and give its figures by round; a side is called with the round's number.

    Every other round goes backwards, so that neither side always finds what the other left behind.
    """
    figures: dict[Name, list[Figure]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in list(sides) if number % 2 == 0 else list(reversed(list(sides))):
            figures[name].append(sides[name](number))
    return figures


def median_ratio(dividends: Sequence[float], divisors: Sequence[float]) -> float:
    """Median over the rounds of dividend / divisor of the same round."""
    return statistics.median(a / b for a, b in zip(dividends, divisors, strict=True))
