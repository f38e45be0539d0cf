"""A sequence's bookkeeping: chunks, spans, ends."""

import numpy as np
import pytest

from service.engine.block_manager import BlockManager
from service.engine.sampler import SamplerState
from service.engine.sampling_params import SamplingParams
from service.engine.sequence import Sequence
from service.engine.token_events import FinishReason, ImageSpan
from tests.unit.engine.scripted_model import EOS, VOCAB_SIZE, request

SPANS = tuple(ImageSpan(start, np.zeros((3, 4), dtype=np.float32), bytes(32)) for start in (1, 4, 9))


def make(sampling: SamplingParams | None = None) -> Sequence:
    sampling = sampling or SamplingParams(max_tokens=4)
    manager = BlockManager(10, 4)
    table = manager.new_table(12 + sampling.max_tokens)
    manager.grow(table, 12)
    one = request("a", list(range(12)), sampling, SPANS)
    return Sequence(0, one, table, SamplerState(sampling, EOS, VOCAB_SIZE), EOS)


@pytest.mark.parametrize(
    ("past_len", "num_tokens", "starts"),
    [(0, 1, []), (0, 2, [1]), (0, 4, [1]), (0, 5, [1, 4]), (3, 1, [1]), (4, 3, [4]), (7, 2, []), (8, 4, [9])],
)
def test_a_chunk_has_the_spans_it_overlaps(past_len: int, num_tokens: int, starts: list[int]) -> None:
    sequence = make()
    sequence.num_computed_tokens = past_len
    chunk = sequence.next_chunk(num_tokens, 3)
    assert [span.start for span in chunk.image_spans] == starts
    assert chunk.token_ids.tolist() == list(range(past_len, past_len + num_tokens))
    assert chunk.samples == (past_len + num_tokens == 12)


def test_generated_tokens_follow_the_prompt() -> None:
    sequence = make()
    sequence.num_computed_tokens = 12
    assert sequence.append(30) is None
    assert (sequence.num_generated, sequence.num_uncomputed) == (1, 1)
    chunk = sequence.next_chunk(1, 4)
    assert (chunk.token_ids.tolist(), chunk.past_len, chunk.image_spans) == ([30], 12, ())


@pytest.mark.parametrize(
    ("sampling", "token", "reason"),
    [
        (SamplingParams(max_tokens=4), EOS, "stop"),
        (SamplingParams(max_tokens=4, ignore_eos=True), EOS, None),
        (SamplingParams(max_tokens=4, stop_token_ids=frozenset({9})), 9, "stop"),
        (SamplingParams(max_tokens=1, stop_token_ids=frozenset({9})), 9, "stop"),
        (SamplingParams(max_tokens=1), 9, "length"),
        (SamplingParams(max_tokens=4), 9, None),
    ],
)
def test_what_ends_a_sequence(sampling: SamplingParams, token: int, reason: FinishReason | None) -> None:
    assert make(sampling).append(token) == reason
