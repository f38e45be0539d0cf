"""Guesses how a text goes on from where it said the same before; knows no model, no cache and no request.

"Prompt lookup decoding": an answer that quotes, extracts or repeats has long stretches in common with what
stands before it. A guess costs nothing but its rows in the step that checks it.
"""

import numpy as np
from numpy.typing import NDArray

# The longest tail is tried first: what followed it is the likeliest. One token alone says too little.
_LONGEST_TAIL, _SHORTEST_TAIL = 4, 2


def look_up(token_ids: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """What may follow `token_ids` [n]: a copy of up to `most` tokens, perhaps none."""
    for length in range(min(_LONGEST_TAIL, len(token_ids) - 1), _SHORTEST_TAIL - 1, -1):
        ends = _ends_of(token_ids, length)
        if len(ends):
            begin = _best_end(ends, len(token_ids), most)
            return token_ids[begin : begin + most].copy()
    return token_ids[:0]


def _ends_of(token_ids: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Behind every earlier occurrence of the last `length` tokens, in order."""
    num_places = len(token_ids) - length  # the last one is the tail itself
    matches = token_ids[:num_places] == token_ids[num_places]
    for offset in range(1, length):
        matches &= token_ids[offset : offset + num_places] == token_ids[num_places + offset]
    return np.flatnonzero(matches) + length


def _best_end(ends: NDArray[np.int64], num_tokens: int, most: int) -> int:
    """The last occurrence that `most` tokens follow; if there is none, the first, which the most follow."""
    num_long = int(np.searchsorted(ends, num_tokens - most, side="right"))
    return int(ends[max(num_long - 1, 0)])
