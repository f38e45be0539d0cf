"""Constrained requests among free ones: every answer is the one it would be alone, and fails alone."""

import json
import random
from collections.abc import Iterator

import jsonschema
import numpy as np
import pytest

from service.engine.answer_matcher import AnswerMatcher
from service.engine.sampler import FAILED, Sampler, SamplerState
from service.engine.sampling_params import SamplingParams
from service.engine.scheduler import PrefixCaching
from service.engine.token_constraint import TokenConstraint
from service.engine.token_events import EngineRequest
from service.generation.grammar import regex_grammar
from tests.unit.engine.grammars import TOKENS, compiled, schema, text_of
from tests.unit.engine.scripted_model import EOS, VOCAB_SIZE, dense_logits
from tests.unit.engine.test_sequence_group import Answers, Harness, sampled_answers

RECORD = {
    "type": "object",
    "properties": {"a": {"type": "array", "items": {"enum": ["red", 3, "é"]}}, "b": {"type": "string"}},
    "required": ["a", "b"],
    "additionalProperties": False,
}


def constrained(
    request_id: str,
    prompt: list[int],
    constraint: TokenConstraint,
    n: int = 1,
    max_tokens: int = 24,
    logprobs: int | None = None,
    temperature: float = 1.0,
) -> EngineRequest:
    sampling = SamplingParams(
        max_tokens, temperature=temperature, repetition_penalty=1.1, seed=11, n=n, logprobs=logprobs
    )
    return EngineRequest(request_id, np.array(prompt, dtype=np.int64), (), sampling, constraint=constraint)


def alone(one: EngineRequest) -> Answers:
    """Every choice drawn by itself, with no engine."""
    assert one.constraint is not None
    answers: Answers = {}
    for index in range(one.sampling.n):
        matcher = AnswerMatcher(one.constraint, one.sampling.max_tokens, EOS, VOCAB_SIZE)
        state = SamplerState(one.sampling, EOS, VOCAB_SIZE, index, matcher)
        tokens: list[int] = []
        while len(tokens) < one.sampling.max_tokens and tokens[-1:] != [EOS]:
            matcher.prepare()
            logits = dense_logits(np.append(one.token_ids, tokens).astype(np.int64))
            (token,) = Sampler().sample(logits[None], [state]).tolist()
            tokens.append(token)
            state.record(token)
        answers[index] = tokens
    return answers


@pytest.mark.parametrize("caching", ["off", "prefilled", "all"])
@pytest.mark.parametrize("seed", range(4))
def test_answers_do_not_depend_on_the_batch_nor_on_preemptions(seed: int, caching: PrefixCaching) -> None:
    generator = random.Random(seed)
    record, numbers = schema(**RECORD), compiled(regex_grammar("[0-9]{2}(, [0-9]{2}){1,4}", "test"))
    preempt: Iterator[bool] = iter(lambda: generator.random() < 0.2, None)
    harness = Harness(caching=caching, preempt=preempt)
    prompts = [[3 + i, 5, 7, 9, 11 + i, 4, 3] for i in range(8)]
    requests = [
        constrained("0", prompts[0], record),
        constrained("1", prompts[1], numbers, n=3),
        constrained("2", prompts[1], record, n=2, temperature=0.0),
        *(
            EngineRequest(
                str(i),
                np.array(prompts[i]),
                (),
                SamplingParams(9, temperature=1.0, seed=i, repetition_penalty=1.1),
            )
            for i in range(3, 8)
        ),
    ]
    generator.shuffle(requests)
    for one in requests:
        harness.add(one)
    harness.drain()
    for one in requests:
        expected = sampled_answers(one) if one.constraint is None else alone(one)
        assert harness.answers(one) == expected
    for one in requests:
        if one.constraint is record:
            for tokens in harness.answers(one).values():
                jsonschema.validate(json.loads(text_of(tokens)), RECORD)
    assert harness.scheduler.num_preemptions


def test_finish_reasons_tell_whether_the_answer_was_cut() -> None:
    harness = Harness()
    reasons = set()
    for seed in range(12):
        one = constrained(str(seed), [3 + seed, 4, 5], schema(**RECORD), max_tokens=22)
        tokens = harness.ask(one)[0]
        jsonschema.validate(json.loads(text_of(tokens)), RECORD)
        *before, last = harness.events[one.request_id]
        assert all(event.finish_reason is None for event in before)
        assert last.finish_reason in ("stop", "length")
        assert (last.stop_token_id == EOS) == (last.finish_reason == "stop")
        reasons.add(last.finish_reason)
    assert reasons == {"stop", "length"}


def test_log_probabilities_are_the_models_and_of_the_tokens_taken() -> None:
    harness = Harness()
    one = constrained("0", [3, 4, 5], schema(**RECORD), max_tokens=16, logprobs=2)
    tokens = harness.ask(one)[0]
    told = [logprobs for event in harness.events["0"] for logprobs in event.logprobs]
    assert len(told) == len(tokens)
    context = one.token_ids
    for token, logprobs in zip(tokens, told, strict=True):
        logits = dense_logits(context).astype(np.float64)
        log_probs = logits - np.log(np.exp(logits).sum())
        assert logprobs.logprob == pytest.approx(log_probs[token], abs=1e-4)
        assert [token_id for token_id, _ in logprobs.top] == np.argsort(-log_probs)[:2].tolist()
        context = np.append(context, token)


@pytest.mark.parametrize("n", [1, 3])
def test_a_grammar_that_cannot_be_followed_ends_its_request_and_no_other(n: int) -> None:
    constraint = compiled(regex_grammar("[0-9]+", "test"))
    broken = TokenConstraint(constraint.matcher.deep_copy(), constraint.closing, constraint.shortest)
    broken.matcher.consume_token(TOKENS.index(b"{"))
    assert broken.matcher.is_error()
    harness = Harness()
    whole, free = constrained("whole", [3, 4, 5], constraint), constrained("broken", [3, 4, 5], broken, n=n)
    harness.add(free)
    harness.add(whole)
    harness.drain()
    assert [event.finish_reason for event in harness.events["broken"]] == ["error"]
    assert harness.answers(whole) == alone(whole)


def test_biases_force_and_ban_and_the_log_probabilities_know_nothing_of_them() -> None:
    harness = Harness()
    plain = SamplingParams(6, logprobs=0)
    prompt = np.array([3, 4, 5])
    free = harness.ask(EngineRequest("free", prompt, (), plain))[0]
    banned = SamplingParams(6, logprobs=0, logit_bias=((free[0], -100.0),))
    other = harness.ask(EngineRequest("banned", prompt, (), banned))[0]
    assert free[0] not in other
    forced = SamplingParams(6, logprobs=0, logit_bias=((17, 100.0), (EOS, -100.0)))
    assert harness.ask(EngineRequest("forced", prompt, (), forced))[0] == [17] * 6
    logits = dense_logits(prompt).astype(np.float64)
    expected = logits[17] - np.log(np.exp(logits).sum())
    assert harness.events["forced"][0].logprobs[0].logprob == pytest.approx(expected, abs=1e-4)


def test_a_bias_does_not_lift_a_grammar() -> None:
    constraint = compiled(regex_grammar("[0-9]{4}", "test"))
    bias = ((TOKENS.index(b"x"), 100.0), (TOKENS.index(b"7"), 100.0))
    sampling = SamplingParams(8, logit_bias=bias)
    one = EngineRequest("0", np.array([3, 4, 5]), (), sampling, constraint=constraint)
    assert text_of(Harness().ask(one)[0]) == b"7777"


@pytest.mark.parametrize(
    "params", [SamplingParams(5, temperature=t, top_k=k) for t, k in ((0, 0), (1, 0), (1, 5))]
)
def test_a_grammar_that_allows_nothing_fails_its_row_without_drawing(params: SamplingParams) -> None:
    """A mask that nobody prepared is empty, as one may be that the library gave up on."""
    matcher = AnswerMatcher(schema(**RECORD), 5, EOS, VOCAB_SIZE)
    matcher.is_failed = True
    free = SamplerState(params, EOS, VOCAB_SIZE)
    logits = np.stack([dense_logits(np.array([3, 4]))] * 2)
    failed, token = Sampler().sample(logits, [SamplerState(params, EOS, VOCAB_SIZE, 0, matcher), free])
    assert failed == FAILED
    assert 0 <= token < VOCAB_SIZE
