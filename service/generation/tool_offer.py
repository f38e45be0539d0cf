"""From the fields of a request to what an answer may call, and what does not go with that."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from service.errors import InvalidValueError, UnsupportedFieldError
from service.generation.choice_parameters import ChoiceParams
from service.generation.grammar import Grammar, embedded_schema, lark_grammar
from service.generation.grammar_limits import check_schema
from service.generation.structured_output import NOT_WITH_A_GRAMMAR
from service.prompt.tool_text import CALL_END, Function, call_beginning, offer_text
from service.protocol.answer_request import DialogueRequest
from service.protocol.chat_request import ChatCompletionRequest
from service.protocol.tools import NamedToolChoice, Tool, ToolChoice

_NO_PARAMETERS: dict[str, JsonValue] = {"type": "object", "properties": {}}
# Where one of these stands, it is the schema that says which properties there may be beside the listed ones.
_SAYS_WHAT_ELSE = {
    "$ref",
    "additionalProperties",
    "allOf",
    "anyOf",
    "oneOf",
    "patternProperties",
    "unevaluatedProperties",
}


@dataclass(frozen=True, slots=True)
class ToolOffer:
    """The functions that answers of a request may call."""

    text: str  # tells the model of them
    names: tuple[str, ...]  # of those that may be called
    grammar: Grammar  # of one call
    is_forced: bool  # every answer is a call


def read_tools(request: DialogueRequest, choices: ChoiceParams) -> ToolOffer | None:
    """None where nothing may be called. Raises InvalidValueError for fields that contradict each other or are
    over a limit, UnsupportedFieldError for combinations that are not implemented."""
    if not isinstance(request, ChatCompletionRequest):
        return None
    functions, choice = read_functions(request.tools or ()), request.tool_choice or "auto"
    indices = _callable(functions, choice)
    if choice == "none" or not indices:
        return None
    is_forced = choice != "auto"
    _refuse_beside_tools(request, choices, is_forced=is_forced)
    called = [functions[index] for index in indices]
    # With several the library does not say which one it cannot take.
    param = f"tools[{indices[0]}].function.parameters" if len(indices) == 1 else "tools"
    names = tuple(function.name for function in called)
    return ToolOffer(offer_text(functions), names, _grammar(called, param), is_forced=is_forced)


def read_functions(tools: Sequence[Tool]) -> tuple[Function, ...]:
    """What the model is told of. Raises InvalidValueError for a name that comes twice and a schema that is
    over a limit or of something other than an object."""
    functions: dict[str, Function] = {}
    for index, tool in enumerate(tools):
        param, function = f"tools[{index}].function", tool.function
        if function.name in functions:
            raise InvalidValueError("two functions have this name", f"{param}.name")
        schema = _NO_PARAMETERS if function.parameters is None else function.parameters
        check_schema(schema, f"{param}.parameters")
        if schema.get("type", "object") != "object":
            raise InvalidValueError("parameters must be the schema of an object", f"{param}.parameters")
        functions[function.name] = Function(function.name, function.description, schema)
    return tuple(functions.values())


def _callable(functions: Sequence[Function], choice: ToolChoice) -> list[int]:
    """Indices of the functions that may be called."""
    if isinstance(choice, NamedToolChoice):
        indices = [index for index, function in enumerate(functions) if function.name == choice.function.name]
        if not indices:
            raise InvalidValueError("none of the tools has this name", "tool_choice.function.name")
        return indices
    if choice == "required" and not functions:
        raise InvalidValueError("tool_choice needs tools to choose from", "tool_choice")
    return list(range(len(functions)))


def _refuse_beside_tools(request: ChatCompletionRequest, choices: ChoiceParams, *, is_forced: bool) -> None:
    if choices.beam_search is not None:
        raise UnsupportedFieldError("tools are not supported in a beam search", "tools")
    if request.response_format is not None and request.response_format.type != "text":
        raise UnsupportedFieldError("response_format is not supported together with tools", "response_format")
    for name in ("structured_outputs", *(NOT_WITH_A_GRAMMAR if is_forced else ())):
        if getattr(request, name):
            raise UnsupportedFieldError(f"{name} is not supported together with tools", name)


def _grammar(functions: Sequence[Function], param: str) -> Grammar:
    calls = [
        f"{json.dumps(call_beginning(function.name))} %json {json.dumps(_arguments(function.parameters))} "
        f"{json.dumps(CALL_END)}"
        for function in functions
    ]
    return lark_grammar("start: " + "\n  | ".join(calls), param)


def _arguments(schema: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """The schema an answer follows: narrower than the client's, never wider.

    Arguments are an object. It has the listed properties and no others, unless the schema speaks of others:
    a free object invites a model to fill it up to the length of the answer.
    """
    narrow: dict[str, JsonValue] = {}
    if "properties" in schema and not _SAYS_WHAT_ELSE & schema.keys():
        narrow = {"additionalProperties": False}
    return embedded_schema({"type": "object", **schema, **narrow})
