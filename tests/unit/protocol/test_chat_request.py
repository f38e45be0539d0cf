"""What the wire types accept, beyond what the conformance tests send."""

from typing import Any

import pytest
from pydantic import ValidationError

from service.errors import UnsupportedFieldError
from service.generation.request_parameters import refuse_unsupported
from service.protocol.chat_request import ChatCompletionRequest
from service.protocol.field_state import Refused

MESSAGES = [{"role": "user", "content": "x"}]


def _parse(**fields: Any) -> ChatCompletionRequest:
    return ChatCompletionRequest.model_validate({"messages": MESSAGES} | fields)


def test_every_field_openais_client_can_send_is_known() -> None:
    from openai.types.chat.completion_create_params import CompletionCreateParamsBase

    sent = set(CompletionCreateParamsBase.__annotations__) | {"stream"}
    assert sent <= set(ChatCompletionRequest.model_fields)


def test_the_extensions_vllms_users_know_are_known() -> None:
    names = "top_k min_p repetition_penalty min_tokens ignore_eos stop_token_ids include_stop_str_in_output"
    names += (
        " skip_special_tokens use_beam_search best_of length_penalty structured_outputs priority cache_salt"
    )
    assert set(names.split()) <= set(ChatCompletionRequest.model_fields)


@pytest.mark.parametrize("name", sorted(set(ChatCompletionRequest.model_fields) - {"messages"}))
def test_null_means_absent(name: str) -> None:
    assert getattr(_parse(**{name: None}), name) is None


@pytest.mark.parametrize("value", [True, "1", [1], float("nan"), float("inf")])
@pytest.mark.parametrize(
    "name", ["temperature", "top_p", "min_p", "presence_penalty", "max_tokens", "seed", "top_k"]
)
def test_numbers_are_finite_numbers(name: str, value: object) -> None:
    with pytest.raises(ValidationError):
        _parse(**{name: value})


def test_lists_have_ends() -> None:
    for fields in (
        {"messages": MESSAGES * 513},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}] * 257}]},
        {"messages": [{"role": "user", "content": "x" * ((1 << 18) + 1)}]},
        {"stop_token_ids": list(range(65))},
    ):
        with pytest.raises(ValidationError):
            ChatCompletionRequest.model_validate({"messages": MESSAGES} | fields)


def test_no_op_values_distinguish_true_from_one() -> None:
    assert Refused((1,)).accepts(1)
    assert Refused((1,)).accepts(1.0)
    assert Refused((1,)).accepts(None)
    assert not Refused((1,)).accepts(True)
    assert not Refused((False,)).accepts(0)
    assert not Refused().accepts(False)
    assert Refused(([],)).accepts([])
    refuse_unsupported(_parse(functions=[], function_call="none"))
    for fields in ({"functions": False}, {"function_call": 0}):
        with pytest.raises(UnsupportedFieldError):
            refuse_unsupported(_parse(**fields))
