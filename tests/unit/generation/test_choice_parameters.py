"""How many choices, by which search: what is the same, what contradicts, what is refused."""

from typing import Any

import pytest

from service.engine.sampling_params import BeamSearchParams
from service.errors import InvalidValueError, UnsupportedFieldError
from service.generation.choice_parameters import ChoiceParams, read_choices
from service.generation.request_parameters import read_sampling
from service.protocol.chat_request import ChatCompletionRequest
from service.protocol.completion_request import CompletionRequest
from service.protocol.responses_request import ResponsesRequest


def _request(**fields: Any) -> ChatCompletionRequest:
    return ChatCompletionRequest.model_validate({"messages": [{"role": "user", "content": "x"}]} | fields)


def _choices(**fields: Any) -> ChoiceParams:
    return read_choices(_request(**fields), max_num_seqs=8)


@pytest.mark.parametrize(
    ("fields", "n", "num_beams"),
    [
        ({}, 1, None),
        ({"n": 3}, 3, None),
        ({"n": 3, "best_of": 3}, 3, None),
        ({"best_of": 1}, 1, None),
        ({"num_beams": 1, "n": 2}, 2, None),
        ({"use_beam_search": False, "length_penalty": 1.0, "early_stopping": False}, 1, None),
        ({"num_beams": 3}, 1, 3),
        ({"num_beams": 3, "n": 2}, 2, 3),
        ({"num_beams": 3, "n": 2, "best_of": 2}, 2, 3),
        ({"num_beams": 3, "best_of": 3}, 1, 3),
        ({"use_beam_search": True, "num_beams": 4}, 1, 4),
        ({"use_beam_search": True, "best_of": 4}, 1, 4),
        ({"use_beam_search": True, "best_of": 4, "n": 2}, 2, 4),
        ({"use_beam_search": True, "n": 4}, 4, 4),
        ({"num_beams": 3, "temperature": 0}, 1, 3),
    ],
)
def test_fields_to_choices_and_beams(fields: dict[str, Any], n: int, num_beams: int | None) -> None:
    choices = _choices(**fields)
    assert choices.n == n
    assert choices.beam_search == (None if num_beams is None else BeamSearchParams(num_beams))
    assert choices.num_seqs == num_beams or n


def test_the_searchs_own_parameters() -> None:
    for early_stopping in (True, False, "never"):
        choices = _choices(num_beams=2, length_penalty=-0.5, early_stopping=early_stopping)
        assert choices.beam_search == BeamSearchParams(2, -0.5, early_stopping)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"best_of": 2}, "best_of"),
        ({"n": 3, "best_of": 2}, "best_of"),
        ({"length_penalty": 2.0}, "length_penalty"),
        ({"early_stopping": "never"}, "early_stopping"),
        ({"num_beams": 2, "temperature": 0.1}, "temperature"),
        ({"num_beams": 2, "logprobs": True}, "logprobs"),
    ],
)
def test_what_is_not_implemented_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(UnsupportedFieldError) as caught:
        _choices(**fields)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 9}, "n"),
        ({"num_beams": 9}, "num_beams"),
        ({"use_beam_search": True, "best_of": 9}, "best_of"),
        ({"n": 3, "num_beams": 2}, "n"),
        ({"use_beam_search": True}, "use_beam_search"),
        ({"use_beam_search": True, "n": 1}, "use_beam_search"),
        ({"use_beam_search": False, "num_beams": 2}, "use_beam_search"),
        ({"use_beam_search": True, "num_beams": 2, "best_of": 3}, "best_of"),
        ({"num_beams": 2, "best_of": 3}, "best_of"),
        ({"top_logprobs": 1}, "top_logprobs"),
        ({"top_logprobs": 1, "logprobs": False}, "top_logprobs"),
    ],
)
def test_what_contradicts_or_is_too_much_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        _choices(**fields)
    assert caught.value.param == param


def test_log_probabilities() -> None:
    assert _choices().logprobs is None
    assert _choices(top_logprobs=0).logprobs is None
    assert _choices(logprobs=False).logprobs is None
    assert _choices(logprobs=True).logprobs == 0
    assert _choices(logprobs=True, top_logprobs=20).logprobs == 20


def test_log_probabilities_of_completions_and_responses() -> None:
    def completion(**fields: Any) -> int | None:
        return read_choices(CompletionRequest.model_validate({"prompt": "x"} | fields), 8).logprobs

    def response(**fields: Any) -> ChoiceParams:
        return read_choices(ResponsesRequest.model_validate({"input": "x"} | fields), 8)

    assert (completion(), completion(logprobs=0), completion(logprobs=5)) == (None, 0, 5)
    include = ["message.output_text.logprobs"]
    assert response() == response(include=["file_search_call.results"]) == ChoiceParams(1, None, None)
    assert response(include=include).logprobs == 0
    assert response(include=include, top_logprobs=3) == ChoiceParams(1, 3, None)
    for fields in ({"top_logprobs": 3}, {"top_logprobs": 3, "include": []}):
        with pytest.raises(InvalidValueError, match="top_logprobs needs include"):
            response(**fields)
    with pytest.raises(UnsupportedFieldError):
        completion(logprobs=0, num_beams=2)


def test_beams_are_greedy_and_have_no_hidden_penalty() -> None:
    request = _request(num_beams=3, n=2)
    sampling = read_sampling(request, read_choices(request, 8), 10, 100, vocab_size=1000)
    assert (sampling.temperature, sampling.repetition_penalty) == (0, 1)
    assert (sampling.n, sampling.num_seqs, sampling.beam_search) == (2, 3, BeamSearchParams(3))
