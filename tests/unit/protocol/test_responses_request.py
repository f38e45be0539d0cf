"""What the wire types of responses accept, beyond what the conformance tests send."""

from typing import Any, get_args

import pytest
from openai.types.responses import ResponseIncludable
from openai.types.responses.response_create_params import ResponseCreateParamsBase
from openai.types.shared_params import Reasoning as SdkReasoning
from pydantic import ValidationError

from service.protocol.responses_request import Includable, Reasoning, ResponsesRequest
from service.protocol.sampling_fields import SamplingFields


def _parse(**fields: Any) -> ResponsesRequest:
    return ResponsesRequest.model_validate({"input": "x"} | fields)


def test_every_field_openais_client_can_send_is_known() -> None:
    assert set(ResponseCreateParamsBase.__annotations__) | {"stream"} <= set(ResponsesRequest.model_fields)
    assert set(SdkReasoning.__annotations__) <= set(Reasoning.model_fields)
    assert set(get_args(ResponseIncludable)) == set(get_args(Includable))


def test_what_a_chat_may_say_of_sampling_may_be_said_here() -> None:
    assert set(SamplingFields.model_fields) < set(ResponsesRequest.model_fields)


@pytest.mark.parametrize("name", sorted(set(ResponsesRequest.model_fields) - {"input"}))
def test_null_means_absent(name: str) -> None:
    assert getattr(_parse(**{name: None}), name) is None


def test_lists_and_texts_have_ends() -> None:
    message = {"role": "user", "content": "x"}
    part = {"type": "input_text", "text": "x"}
    for fields in (
        {"input": [message] * 513},
        {"input": [{"role": "user", "content": [part] * 257}]},
        {"input": "x" * ((1 << 18) + 1)},
        {"instructions": "x" * ((1 << 18) + 1)},
        {"include": ["file_search_call.results"] * 33},
        {"metadata": {"x" * 65: "x"}},
    ):
        with pytest.raises(ValidationError):
            _parse(**fields)
