"""Owns how functions, their calls and their results are written for the model; knows no tokens and no wire.

The model was trained for none of this: docs/decisions/0028-tools.md says why it looks as it does. What the
model is to write is what it reads of earlier calls.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

CALL_END = "}"


@dataclass(frozen=True, slots=True)
class Function:
    """What the model is told of a function."""

    name: str  # letters, digits, _ and -
    description: str | None
    parameters: Mapping[str, Any]  # a JSON schema


def offer_text(functions: Sequence[Function]) -> str:
    """What stands in front of the conversation: the functions, and how one is called."""
    described = "\n".join(_describe(function) for function in functions)
    return (
        f"You may call these functions:\n{described}\nTo call one, answer only: {call_text('NAME', '{...}')}"
    )


def call_beginning(name: str) -> str:
    """What a call begins with, and no call of another function does."""
    return f'{{"name": "{name}", "arguments": '


def call_text(name: str, arguments: str) -> str:
    """A call with the JSON of its arguments."""
    return f"{call_beginning(name)}{arguments}{CALL_END}"


def result_text(name: str, result: str) -> str:
    """What a function returned."""
    return f"Result of {name}: {result}"


def _describe(function: Function) -> str:
    told: dict[str, Any] = {"name": function.name}
    if function.description:
        told["description"] = function.description
    told["parameters"] = function.parameters
    return json.dumps(told, ensure_ascii=False, separators=(",", ":"))
