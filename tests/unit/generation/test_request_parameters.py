"""Defaults, contradictions, and what does not fit."""

from typing import Any

import pytest

from service.errors import ContextLengthError, InvalidValueError, UnsupportedFieldError
from service.generation.choice_parameters import read_choices
from service.generation.request_parameters import read_sampling, read_stop_strings, refuse_unsupported
from service.protocol.answer_request import AnswerRequest
from service.protocol.chat_request import ChatCompletionRequest
from service.protocol.completion_request import CompletionRequest
from service.protocol.responses_request import ResponsesRequest


def _request(**fields: Any) -> ChatCompletionRequest:
    return ChatCompletionRequest.model_validate({"messages": [{"role": "user", "content": "x"}]} | fields)


def _sampling(prompt: int = 10, context: int = 4096, **fields: Any) -> Any:
    request = _request(**fields)
    choices = read_choices(request, max_num_seqs=32)
    return read_sampling(request, choices, prompt, context - prompt, vocab_size=1000)


def test_who_says_nothing_samples_as_the_published_chat_does() -> None:
    sampling = _sampling()
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (0.7, 0.8, 100)
    assert (sampling.repetition_penalty, sampling.max_tokens, sampling.seed) == (1.05, 1024, None)
    assert (sampling.min_p, sampling.presence_penalty, sampling.frequency_penalty) == (0, 0, 0)


def test_greedy_has_no_hidden_penalty() -> None:
    assert _sampling(temperature=0).repetition_penalty == 1.0
    assert _sampling(temperature=0, repetition_penalty=1.2).repetition_penalty == 1.2


@pytest.mark.parametrize("off", [0, -1])
def test_top_k_is_turned_off_by_both_customs(off: int) -> None:
    assert _sampling(top_k=off).top_k == 0


def test_a_nucleus_of_nothing_is_the_likeliest_token() -> None:
    sampling = _sampling(top_p=0)
    assert (sampling.top_p, sampling.top_k) == (1.0, 1)


def test_seeds_may_be_negative() -> None:
    assert _sampling(seed=-1).seed == (1 << 64) - 1
    assert _sampling(seed=0).seed == 0


@pytest.mark.parametrize(
    ("prompt", "asked", "given"),
    [(10, None, 1024), (4000, None, 96), (4095, None, 1), (4000, 96, 96), (4095, 1, 1)],
)
def test_what_fits(prompt: int, asked: int | None, given: int) -> None:
    assert _sampling(prompt, max_tokens=asked).max_tokens == given
    assert _sampling(prompt, max_completion_tokens=asked).max_tokens == given


@pytest.mark.parametrize(("prompt", "asked"), [(4096, None), (4096, 1), (4000, 97), (9000, 5)])
def test_what_does_not_fit_is_told_with_numbers(prompt: int, asked: int | None) -> None:
    with pytest.raises(ContextLengthError) as caught:
        _sampling(prompt, max_tokens=asked)
    assert "4096" in caught.value.message
    assert str(prompt) in caught.value.message


@pytest.mark.parametrize(
    ("shape", "fields", "default", "field"),
    [
        (CompletionRequest, {"prompt": "x"}, 16, "prompt"),
        (CompletionRequest, {"prompt": "x", "max_tokens": 90}, 90, "prompt"),
        (ResponsesRequest, {"input": "x"}, 1024, "input"),
        (ResponsesRequest, {"input": "x", "max_output_tokens": 90}, 90, "input"),
    ],
)
def test_each_endpoint_has_its_own_name_and_default(
    shape: type[AnswerRequest], fields: dict[str, Any], default: int, field: str
) -> None:
    request = shape.model_validate(fields)
    choices = read_choices(request, max_num_seqs=32)
    assert read_sampling(request, choices, 10, 4086, vocab_size=1000).max_tokens == default
    with pytest.raises(ContextLengthError, match=f"needed for the {field}") as caught:
        read_sampling(request, choices, 4096, 0, vocab_size=1000)
    assert caught.value.param == field


def test_both_limits_may_be_sent_if_they_agree() -> None:
    assert _sampling(max_tokens=5, max_completion_tokens=5).max_tokens == 5
    with pytest.raises(InvalidValueError):
        _sampling(max_tokens=5, max_completion_tokens=6)


def test_min_tokens_cannot_exceed_what_is_left() -> None:
    assert _sampling(4000, min_tokens=96).min_tokens == 96
    with pytest.raises(InvalidValueError, match="min_tokens"):
        _sampling(4000, min_tokens=97)


def test_stop_strings() -> None:
    assert read_stop_strings(_request()) == ()
    assert read_stop_strings(_request(stop="a")) == ("a",)
    assert read_stop_strings(_request(stop=["a", "b"])) == ("a", "b")


def test_biases_are_of_ids_of_the_vocabulary() -> None:
    assert _sampling(logit_bias={}).logit_bias == ()
    assert _sampling(logit_bias={"7": -100, "0": 2.5}).logit_bias == ((7, -100.0), (0, 2.5))
    assert dict(_sampling(logit_bias={str(i): 1 for i in range(300)}).logit_bias)[299] == 1.0
    for key in ("500000", "-1", "01", "1.0", " 1", "", "one", "١", "9" * 5000):
        with pytest.raises(InvalidValueError) as caught:
            _sampling(logit_bias={key: 1})
        assert caught.value.param == "logit_bias"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"structured_outputs": {"whitespace_pattern": " "}}, "structured_outputs.whitespace_pattern"),
        ({"messages": [{"role": "user", "content": "x", "function_call": {}}]}, "messages[0].function_call"),
        (
            {
                "messages": [
                    {"role": "user", "content": "x"},
                    {"role": "assistant", "content": "", "refusal": "no"},
                ]
            },
            "messages[1].refusal",
        ),
    ],
)
def test_the_unsupported_is_named_wherever_it_stands(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(UnsupportedFieldError) as caught:
        refuse_unsupported(_request(**fields))
    assert caught.value.param == param


def test_what_an_openai_client_echoes_of_an_answer_is_accepted() -> None:
    echoed: dict[str, Any] = {
        "role": "assistant",
        "content": "x",
        "refusal": None,
        "annotations": [],
        "audio": None,
        "function_call": None,
        "tool_calls": None,
    }
    refuse_unsupported(_request(messages=[echoed]))
