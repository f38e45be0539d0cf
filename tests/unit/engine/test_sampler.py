"""Penalties, masks, random streams and failing rows."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from service.engine.sampler import FAILED, Sampler, SamplerState
from service.engine.sampling_params import BeamSearchParams, SamplingParams

VOCAB_SIZE = 40
EOS = 2


def state(params: SamplingParams, *generated: int) -> SamplerState:
    result = SamplerState(params, EOS, VOCAB_SIZE)
    for token in generated:
        result.record(token)
    return result


def logits_for(seed: int, rows: int = 1) -> NDArray[np.float32]:
    return (np.random.default_rng(seed).standard_normal((rows, VOCAB_SIZE)) * 3).astype(np.float32)


def test_greedy_takes_the_first_of_the_largest() -> None:
    logits = logits_for(0, 3)
    logits[1, 5] = logits[1, 9] = 50
    expected = [int(row.argmax()) for row in logits]
    assert expected[1] == 5
    greedy = [state(SamplingParams(max_tokens=4)) for _ in range(3)]
    assert Sampler().sample(logits, greedy).tolist() == expected


def test_penalties_follow_their_formulas() -> None:
    params = SamplingParams(
        max_tokens=9, temperature=1, repetition_penalty=1.3, presence_penalty=0.5, frequency_penalty=0.25
    )
    logits = logits_for(1)
    logits[0, 3], logits[0, 8] = 2.0, -2.0
    before = logits.copy()
    list(Sampler().distributions(logits, [state(params, 3, 8, 3, 3)]))
    assert logits[0, 3] == pytest.approx(2 / 1.3 - 0.5 - 0.75, abs=1e-6)
    assert logits[0, 8] == pytest.approx(-2 * 1.3 - 0.5 - 0.25, abs=1e-6)
    untouched = [i for i in range(VOCAB_SIZE) if i not in (3, 8)]
    assert np.array_equal(logits[0, untouched], before[0, untouched])


def test_penalties_can_change_a_greedy_answer_and_the_first_token_has_none() -> None:
    params = SamplingParams(max_tokens=9, repetition_penalty=2.0)
    logits = np.zeros((1, VOCAB_SIZE), dtype=np.float32)
    logits[0, [4, 6]] = 3.0, 2.0
    assert Sampler().sample(logits.copy(), [state(params)]).tolist() == [4]
    assert Sampler().sample(logits.copy(), [state(params, 4)]).tolist() == [6]


def test_min_tokens_masks_every_end() -> None:
    params = SamplingParams(max_tokens=9, min_tokens=2, stop_token_ids=frozenset({7, VOCAB_SIZE + 5}))
    logits = np.zeros((1, VOCAB_SIZE), dtype=np.float32)
    logits[0, [EOS, 7, 11]] = 9.0, 8.0, 7.0
    assert Sampler().sample(logits.copy(), [state(params, 1)]).tolist() == [11]
    assert Sampler().sample(logits.copy(), [state(params, 1, 1)]).tolist() == [EOS]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_row_that_is_not_finite_fails_alone(bad: float, temperature: float) -> None:
    params = SamplingParams(max_tokens=9, temperature=temperature, seed=1, repetition_penalty=1.1)
    logits = logits_for(2, 3)
    alone = Sampler().sample(logits[[0, 2]].copy(), [state(params, 4), state(params, 4)])
    logits[1, 4] = bad
    tokens = Sampler().sample(logits, [state(params, 4) for _ in range(3)])
    assert tokens[1] == FAILED
    assert tokens[[0, 2]].tolist() == alone.tolist()


VARIANTS = [
    SamplingParams(max_tokens=60, temperature=0.0),
    SamplingParams(max_tokens=60, temperature=0.7, top_p=0.8, top_k=10, repetition_penalty=1.05, seed=3),
    SamplingParams(max_tokens=60, temperature=1.3, top_k=10, min_p=0.1, seed=4),
    SamplingParams(max_tokens=60, temperature=1.0, top_p=0.5, frequency_penalty=0.3, seed=5),
    SamplingParams(max_tokens=60, temperature=2.0, seed=6),
    SamplingParams(max_tokens=60, temperature=2.0, min_p=0.05, presence_penalty=-0.5, seed=6),
]


def run_many(params: list[SamplingParams], num_steps: int = 30) -> list[list[int]]:
    """Every request sees its own sequence of logits, whoever its neighbours are."""
    states = [state(p) for p in params]
    answers: list[list[int]] = [[] for _ in params]
    for step in range(num_steps):
        logits = np.concatenate([logits_for(1000 * VARIANTS.index(p) + step) for p in params])
        for row, token in enumerate(Sampler().sample(logits, states).tolist()):
            states[row].record(token)
            answers[row].append(token)
    return answers


def test_an_answer_does_not_depend_on_the_batch() -> None:
    together = run_many(VARIANTS)
    backwards = run_many(VARIANTS[::-1])[::-1]
    alone = [run_many([params])[0] for params in VARIANTS]
    assert together == alone == backwards


def test_seeds_decide_and_without_one_requests_differ() -> None:
    params = VARIANTS[4]
    unseeded = replace(params, seed=None)
    steps = [logits_for(step, 4) for step in range(20)]
    states = [state(params), state(params), state(unseeded), state(unseeded)]
    for logits in steps:
        logits[:] = logits[0]
    answers = np.array([Sampler().sample(logits, states) for logits in steps]).T.tolist()
    assert answers[0] == answers[1]
    assert answers[0] != answers[2] != answers[3]


def test_frequencies_follow_the_distribution() -> None:
    params = SamplingParams(max_tokens=10, temperature=1.0, seed=8)
    logits = logits_for(6)
    ids, probabilities = next(iter(Sampler().distributions(logits.copy(), [state(params)])))[1]
    drawer = state(params)
    drawn = [int(Sampler().sample(logits.copy(), [drawer])[0]) for _ in range(4000)]
    expected = dict(zip(ids[0].tolist(), probabilities[0].tolist(), strict=True))
    observed = np.bincount(drawn, minlength=VOCAB_SIZE) / len(drawn)
    for token in range(VOCAB_SIZE):  # five standard deviations
        assert abs(observed[token] - expected[token]) < 5 * (expected[token] / len(drawn)) ** 0.5 + 1e-3


def test_log_probabilities_are_of_the_models_own_logits() -> None:
    """Against numpy in f64: neither penalties, temperature nor masks show in them."""
    logits = logits_for(4, 5)
    raw = logits.astype(np.float64)
    reference = raw - np.log(np.exp(raw).sum(axis=1, keepdims=True))
    counts: list[int | None] = [3, None, 0, 20, 3]
    states = [
        state(
            SamplingParams(
                30, temperature=0.5 * row, repetition_penalty=3.0, min_tokens=25, seed=row, logprobs=count
            ),
            *range(20),
        )
        for row, count in enumerate(counts)
    ]
    tokens, told = Sampler().sample_with_logprobs(logits.copy(), states)
    assert sorted(told) == [0, 2, 3, 4]
    for row, logprobs in told.items():
        assert logprobs.logprob == pytest.approx(reference[row, tokens[row]], abs=1e-5)
        order = np.argsort(-reference[row])[: counts[row]]
        assert [token_id for token_id, _ in logprobs.top] == order.tolist()
        assert [value for _, value in logprobs.top] == pytest.approx(reference[row, order], abs=1e-5)
    others = [replace(s.params, logprobs=None) for s in states]
    silent = [state(params, *range(20)) for params in others]
    assert Sampler().sample_with_logprobs(logits.copy(), silent)[1] == {}


def test_asking_for_log_probabilities_changes_no_token() -> None:
    params = SamplingParams(max_tokens=9, temperature=1.0, seed=5)
    for row in range(20):
        plain = Sampler().sample(logits_for(row), [state(params)])
        tokens, _ = Sampler().sample_with_logprobs(logits_for(row), [state(replace(params, logprobs=20))])
        assert tokens.tolist() == plain.tolist()


def test_a_failed_row_tells_nothing() -> None:
    logits = logits_for(0, 3)
    logits[1, 3] = np.nan
    tokens, told = Sampler().sample_with_logprobs(logits, [state(SamplingParams(9, logprobs=2))] * 3)
    assert tokens[1] == FAILED
    assert sorted(told) == [0, 2]


def test_beams_add_up_log_probabilities_with_penalties_on_them() -> None:
    params = SamplingParams(
        9,
        repetition_penalty=1.5,
        presence_penalty=0.25,
        frequency_penalty=0.5,
        min_tokens=3,
        beam_search=BeamSearchParams(2),
    )
    logits = logits_for(6, 2)
    raw = logits.astype(np.float64)
    expected = raw - np.log(np.exp(raw).sum(axis=1, keepdims=True))
    for token, count in ((3, 2), (8, 1)):
        expected[0, token] = expected[0, token] * 1.5 - 0.25 - 0.5 * count
    expected[1, 5] = expected[1, 5] * 1.5 - 0.25 - 0.5
    expected[1, EOS] = -np.inf
    generated = [np.array([3, 8, 3]), np.array([5])]
    found = Sampler().beam_log_probs(logits, state(params), generated)
    assert found is not None
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    logits[1, 7] = np.inf
    assert Sampler().beam_log_probs(logits, state(params), generated) is None


def test_biases_come_before_penalties_and_stay_within_their_row() -> None:
    biased = SamplingParams(max_tokens=9, repetition_penalty=2.0, logit_bias=((4, -1.0), (6, 5.0)))
    logits = np.zeros((2, VOCAB_SIZE), dtype=np.float32)
    logits[:, 4], logits[:, 6] = 3.0, 1.0
    plain = state(SamplingParams(max_tokens=9))
    tokens, told = Sampler().sample_with_logprobs(logits, [state(replace(biased, logprobs=1), 6), plain])
    assert tokens.tolist() == [6, 4], "(1 + 5) / 2 is more than 3 - 1"
    assert logits[0, [4, 6]].tolist() == [2.0, 3.0]
    assert logits[1, [4, 6]].tolist() == [3.0, 1.0]
    assert told[0].top[0][0] == 4, "the model's own likeliest"


def test_beams_are_biased_in_their_log_probabilities() -> None:
    logits = logits_for(5, 2)
    params = SamplingParams(9, beam_search=BeamSearchParams(2), logit_bias=((3, -100.0), (8, 2.0)))
    generated = [np.array([3]), np.array([4])]
    free = Sampler().beam_log_probs(logits.copy(), state(replace(params, logit_bias=())), generated)
    found = Sampler().beam_log_probs(logits.copy(), state(params), generated)
    assert free is not None
    assert found is not None
    difference = np.zeros_like(free)
    difference[:, 3], difference[:, 8] = -100.0, 2.0
    np.testing.assert_allclose(found - free, difference, rtol=0, atol=1e-4)


def test_every_choice_has_a_random_stream_of_its_own() -> None:
    params = SamplingParams(9, temperature=1.0, seed=3, n=4)
    streams = [SamplerState(params, EOS, VOCAB_SIZE, index).rng.random(4).tolist() for index in range(4)]
    assert len({tuple(stream) for stream in streams}) == 4
    assert streams[0] == np.random.default_rng(3).random(4).tolist()
    neighbour = SamplerState(replace(params, seed=4), EOS, VOCAB_SIZE).rng.random(4).tolist()
    assert neighbour not in streams
