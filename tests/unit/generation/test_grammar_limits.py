"""Every limit on grammars: what is just within it passes, what is beyond is named."""

from collections.abc import Callable
from typing import Any

import pytest

from service.errors import InvalidValueError
from service.generation.grammar_limits import (
    MAX_CHOICES,
    MAX_CHOICES_LENGTH,
    MAX_LARK_COLONS,
    MAX_LARK_LENGTH,
    MAX_REGEX_LENGTH,
    MAX_SCHEMA_DEPTH,
    MAX_SCHEMA_LENGTH,
    MAX_SCHEMA_NODES,
    MAX_SCHEMA_REFS,
    check_choices,
    check_lark,
    check_regex,
    check_schema,
)


def nested(depth: int) -> dict[str, Any]:
    return {"items": nested(depth - 1)} if depth > 1 else {}


def referring(num_targets: int) -> dict[str, Any]:
    return {"anyOf": [{"$ref": f"#/$defs/d{i % num_targets}"} for i in range(100)]}


@pytest.mark.parametrize(
    ("check", "within", "beyond"),
    [
        (check_schema, nested(MAX_SCHEMA_DEPTH), nested(MAX_SCHEMA_DEPTH + 1)),
        (check_schema, referring(MAX_SCHEMA_REFS), referring(MAX_SCHEMA_REFS + 1)),
        (check_schema, {"enum": [1] * (MAX_SCHEMA_NODES - 2)}, {"enum": [1] * (MAX_SCHEMA_NODES - 1)}),
        (check_schema, {"a": "x" * (MAX_SCHEMA_LENGTH - 9)}, {"a": "x" * MAX_SCHEMA_LENGTH}),
        (check_schema, {"$ref": "#/$defs/a"}, {"$ref": "http://127.0.0.1/a"}),
        (check_schema, {"$ref": "#"}, {"items": {"$ref": "file:///etc/passwd"}}),
        (check_schema, {"title": "x"}, {"x-guidance": {"whitespace_pattern": " *"}}),
        (check_schema, {"properties": {"not": {}, "if": {}}}, {"properties": {"a": {"not": {}}}}),
        (check_schema, {"enum": [{"contains": {}}]}, {"anyOf": [{"items": {"contains": {}}}]}),
        (check_schema, {"properties": {"properties": {}}}, {"$defs": {"a": {"uniqueItems": True}}}),
        (check_schema, {"pattern": "a" * MAX_REGEX_LENGTH}, {"pattern": "a" * (MAX_REGEX_LENGTH + 1)}),
        (check_schema, {"multipleOf": 9999}, {"multipleOf": 10007}),
        (check_schema, {"multipleOf": 0.0001}, {"multipleOf": 0.00010001}),
        (check_schema, {"multipleOf": 5e-324}, {"multipleOf": 99999989}),
        (check_schema, {"multipleOf": 1e22}, {"multipleOf": 123456.5}),
        (check_schema, {"properties": {"multipleOf": {}}}, {"items": {"multipleOf": 1e-7 / 3}}),
        (check_regex, "a" * MAX_REGEX_LENGTH, "a" * (MAX_REGEX_LENGTH + 1)),
        (check_regex, "\U0001f600", "\ud83d"),
        (check_lark, "\U0001f600", "a\udc00"),
        (check_choices, ["a"] * MAX_CHOICES, ["a"] * (MAX_CHOICES + 1)),
        (check_choices, ["a" * MAX_CHOICES_LENGTH], ["a" * MAX_CHOICES_LENGTH, "b"]),
        (check_choices, ["a"], []),
        (check_choices, [" "], ["a", ""]),
        (check_lark, "a" * MAX_LARK_LENGTH, "a" * (MAX_LARK_LENGTH + 1)),
        (check_lark, ":" * MAX_LARK_COLONS, ":" * (MAX_LARK_COLONS + 1)),
        (check_lark, "%ignore /x/", 'start: %json {"type": "integer"}'),
        (check_lark, "%regex {}", "start: %lark { start: x }"),
        (check_lark, 'start: "<"', "start: <[105]>"),
        (check_lark, "start[max_tokens=3]: /x/", "start[temperature=0.5]: /x/"),
    ],
    ids=range(29),
)
def test_limits(check: Callable[[Any, str], None], within: Any, beyond: Any) -> None:
    check(within, "field")
    with pytest.raises(InvalidValueError) as caught:
        check(beyond, "field")
    assert caught.value.param == "field"
