"""What the wire types of completions accept, beyond what the conformance tests send."""

from typing import Any

import pytest
from openai.types.completion_create_params import CompletionCreateParamsBase
from pydantic import ValidationError

from service.protocol.completion_request import CompletionRequest
from service.protocol.sampling_fields import ChoiceFields


def _parse(**fields: Any) -> CompletionRequest:
    return CompletionRequest.model_validate({"prompt": "x"} | fields)


def test_every_field_openais_client_can_send_is_known() -> None:
    assert set(CompletionCreateParamsBase.__annotations__) | {"stream"} <= set(CompletionRequest.model_fields)


def test_what_a_chat_may_say_of_its_choices_may_be_said_here() -> None:
    assert set(ChoiceFields.model_fields) < set(CompletionRequest.model_fields)


@pytest.mark.parametrize("name", sorted(set(CompletionRequest.model_fields) - {"prompt"}))
def test_null_means_absent(name: str) -> None:
    assert getattr(_parse(**{name: None}), name) is None


def test_lists_have_ends() -> None:
    for prompt in (
        ["x"] * 33,
        [[5]] * 33,
        [5] * ((1 << 18) + 1),
        "x" * ((1 << 18) + 1),
        ["x", "x" * ((1 << 18) + 1)],
    ):
        with pytest.raises(ValidationError):
            _parse(prompt=prompt)
    assert len(_parse(prompt=["x"] * 32).prompt) == 32
