"""Which grammar a request asks for, and what does not go with one."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from service.errors import InvalidValueError, UnsupportedFieldError
from service.generation.choice_parameters import read_choices
from service.generation.grammar import (
    Grammar,
    choice_grammar,
    client_lark_grammar,
    json_schema_grammar,
    regex_grammar,
)
from service.generation.structured_output import read_grammar
from service.protocol.chat_request import ChatCompletionRequest

SCHEMA: dict[str, Any] = {"type": "object", "properties": {"a": {"type": "integer"}}}
NAMED = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}}
AT_SCHEMA = "response_format.json_schema.schema"
OUTPUTS = "structured_outputs"
OBJECT: dict[str, Any] = {"type": "object"}
AS_TEXT = json.dumps(SCHEMA)
INERT: dict[str, Any] = {"stop": [], "min_tokens": 0, "ignore_eos": False}


def _read(**fields: Any) -> Grammar | None:
    request = ChatCompletionRequest.model_validate({"messages": [{"role": "user", "content": "x"}]} | fields)
    return read_grammar(request, read_choices(request, max_num_seqs=8))


@pytest.mark.parametrize(
    ("fields", "grammar"),
    [
        ({}, None),
        ({"response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "text", "json_schema": None}}, None),
        ({"response_format": {"type": "json_object"}}, json_schema_grammar(OBJECT, "response_format")),
        ({"response_format": NAMED}, json_schema_grammar(SCHEMA, AT_SCHEMA)),
        ({"structured_outputs": {"json": SCHEMA}}, json_schema_grammar(SCHEMA, f"{OUTPUTS}.json")),
        ({"structured_outputs": {"json": AS_TEXT}}, json_schema_grammar(SCHEMA, f"{OUTPUTS}.json")),
        ({"structured_outputs": {"json": {}}}, json_schema_grammar({}, f"{OUTPUTS}.json")),
        ({"structured_outputs": {"regex": ""}}, regex_grammar("", f"{OUTPUTS}.regex")),
        ({"structured_outputs": {"choice": ["a", "b"]}}, choice_grammar(["a", "b"], f"{OUTPUTS}.choice")),
        ({"structured_outputs": {"grammar": "x"}}, client_lark_grammar("x", f"{OUTPUTS}.grammar")),
        (
            {"structured_outputs": {"regex": "a"}, "response_format": {"type": "text"}, **INERT},
            regex_grammar("a", f"{OUTPUTS}.regex"),
        ),
    ],
)
def test_what_is_asked_for(fields: dict[str, Any], grammar: Grammar | None) -> None:
    assert _read(**fields) == grammar


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"response_format": {**NAMED, "type": "json_object"}}, "response_format.json_schema"),
        ({"response_format": {**NAMED, "type": "text"}}, "response_format.json_schema"),
        ({"response_format": NAMED, "structured_outputs": {"regex": "a"}}, "structured_outputs"),
        ({"structured_outputs": {}}, "structured_outputs"),
        ({"structured_outputs": {"regex": "a", "choice": ["b"]}}, "structured_outputs.choice"),
        ({"structured_outputs": {"choice": []}}, "structured_outputs.choice"),
        ({"structured_outputs": {"json": "[]"}}, "structured_outputs.json"),
        ({"structured_outputs": {"json": "{"}}, "structured_outputs.json"),
        ({"structured_outputs": {"json": "[" * 100_000}}, "structured_outputs.json"),
        ({"structured_outputs": {"json": {"x-guidance": {}}}}, "structured_outputs.json"),
        ({"structured_outputs": {"grammar": "start: %json {}"}}, "structured_outputs.grammar"),
    ],
)
def test_contradictions_and_what_is_over_a_limit(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        _read(**fields)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("beside", "param"),
    [
        ({"num_beams": 2}, "response_format"),
        ({"use_beam_search": True, "n": 2}, "response_format"),
        ({"stop": "a"}, "stop"),
        ({"stop": ["a"]}, "stop"),
        ({"stop_token_ids": [5]}, "stop_token_ids"),
        ({"min_tokens": 1}, "min_tokens"),
        ({"ignore_eos": True}, "ignore_eos"),
    ],
)
def test_what_does_not_go_with_a_grammar(beside: dict[str, Any], param: str) -> None:
    assert _read(**beside) is None
    with pytest.raises(UnsupportedFieldError) as caught:
        _read(response_format=NAMED, **beside)
    assert caught.value.param == param


@pytest.mark.parametrize(
    "field",
    [
        {"response_format": {"type": "structural_tag"}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "two words", "schema": {}}}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": True}}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}, "more": 1}}},
        {"structured_outputs": {"json": 3}},
        {"structured_outputs": {"json": [SCHEMA]}},
        {"structured_outputs": {"choice": "a"}},
        {"structured_outputs": {"choice": [1]}},
        {"structured_outputs": {"schema": SCHEMA}},
        {"structured_outputs": {"_backend": "x"}},
    ],
)
def test_what_has_not_the_shape(field: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        _read(**field)
