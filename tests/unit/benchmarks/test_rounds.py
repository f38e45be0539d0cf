"""A and B in turn."""

from collections.abc import Callable

import pytest

from benchmarks.load import Load
from benchmarks.rounds import alternate, median_ratio


def test_sides_take_turns_and_every_other_round_goes_backwards() -> None:
    order: list[str] = []

    def side(name: str) -> Callable[[int], str]:
        def run(number: int) -> str:
            order.append(name)
            return f"{name}{number}"

        return run

    figures = alternate(3, {"a": side("a"), "b": side("b")})
    assert figures == {"a": ["a0", "a1", "a2"], "b": ["b0", "b1", "b2"]}
    assert order == ["a", "b", "b", "a", "a", "b"]


def test_the_ratio_is_of_rounds_not_of_medians() -> None:
    assert median_ratio([1.0, 10.0, 4.0], [1.0, 5.0, 1.0]) == pytest.approx(2.0)


def test_every_round_has_prompts_of_its_own_and_repeats_them() -> None:
    load = Load(streams=2, prompt_tokens=8, tokens=1, rounds=2)
    first, again, other = (load.prompts(1000, number) for number in (0, 0, 1))
    assert [p.tolist() for p in first] == [p.tolist() for p in again]
    assert [p.tolist() for p in first] != [p.tolist() for p in other]
