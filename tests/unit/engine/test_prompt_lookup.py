"""What is guessed to follow, against a search written out."""

import random

import numpy as np

from service.engine.prompt_lookup import look_up


def guess(token_ids: list[int], most: int) -> list[int]:
    return [int(token) for token in look_up(np.array(token_ids, dtype=np.int64), most)]


def slow_guess(token_ids: list[int], most: int) -> list[int]:
    for length in (4, 3, 2):
        ends = [e for e in range(length, len(token_ids)) if token_ids[e - length : e] == token_ids[-length:]]
        if ends:
            long = [end for end in ends if end + most <= len(token_ids)]
            end = long[-1] if long else ends[0]
            return token_ids[end : end + most]
    return []


def test_it_goes_on_as_after_the_same_words() -> None:
    assert guess([7, 1, 2, 3, 4, 5, 9, 1, 2], 3) == [3, 4, 5]
    assert guess([1, 2, 3, 8, 1, 2, 4, 9, 1, 2], 2) == [4, 9], "the latest"
    assert guess([5, 1, 2, 3, 8, 1, 2, 4, 9, 5, 1, 2], 2) == [3, 8], "the longest"
    assert guess([1, 2, 3, 1, 2], 9) == [3, 1, 2], "as far as it goes"
    assert guess([4, 4, 4, 4, 4], 2) == [4]


def test_one_word_alone_says_nothing() -> None:
    assert guess([1, 2, 3, 1], 4) == []
    for short in ([], [1], [1, 1], [1, 2]):
        assert guess(short, 4) == []


def test_random_texts() -> None:
    rng = random.Random(0)
    num_found = 0
    for _ in range(2000):
        text = [rng.randrange(3) for _ in range(rng.randrange(25))]
        most = rng.randint(1, 6)
        assert guess(text, most) == slow_guess(text, most)
        num_found += bool(guess(text, most))
    assert num_found > 1000


def test_a_guess_is_a_copy() -> None:
    text = np.array([1, 2, 3, 1, 2], dtype=np.int64)
    look_up(text, 1)[:] = 9
    assert text.tolist() == [1, 2, 3, 1, 2]
