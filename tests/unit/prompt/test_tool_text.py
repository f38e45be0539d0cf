"""How tools look to the model."""

import json

from service.prompt.tool_text import Function, call_beginning, call_text, offer_text, result_text


def test_functions_are_told_a_line_each_and_how_to_call_them() -> None:
    text = offer_text([Function("f", "Fünf.", {"type": "object"}), Function("g", None, {})])
    assert text.split("\n") == [
        "You may call these functions:",
        '{"name":"f","description":"Fünf.","parameters":{"type":"object"}}',
        '{"name":"g","parameters":{}}',
        'To call one, answer only: {"name": "NAME", "arguments": {...}}',
    ]


def test_a_call_is_json_that_begins_with_its_name() -> None:
    text = call_text("f-1", '{"x": 5}')
    assert json.loads(text) == {"name": "f-1", "arguments": {"x": 5}}
    assert text.startswith(call_beginning("f-1"))
    assert not text.startswith(call_beginning("f"))


def test_a_result_names_its_function() -> None:
    assert result_text("f", "5\n6") == "Result of f: 5\n6"
