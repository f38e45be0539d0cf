"""What answers may be, as a text that llguidance compiles; knows no request and compiles nothing.

Whoever needs a constraint makes a Grammar here and hands it to GrammarCompiler.compile: from a JSON schema
(`json_schema_grammar`), a regular expression, a list of texts, or a grammar in llguidance's Lark
(`lark_grammar`). Lark can embed a schema as a value, `start: "Answer: " %json {...}`: pass the schema through
`check_schema` and `embedded_schema` first, they give it the same limits and the same white space.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llguidance import LLMatcher
from pydantic import JsonValue

from service.generation.grammar_limits import check_choices, check_lark, check_regex, check_schema

# A model may put one space where people do, and cannot fill an answer with them.
_JSON_OPTIONS: dict[str, JsonValue] = {
    "whitespace_flexible": False,
    "item_separator": ", ?",
    "key_separator": ": ?",
    "coerce_one_of": False,
    "lenient": False,
}


@dataclass(frozen=True, slots=True)
class Grammar:
    """Every answer must be of it, from its first character to its last."""

    source: str  # as llguidance takes it
    param: str  # the request's field that asks for it, for error messages
    answers: tuple[str, ...] = ()  # some, where they are known


def json_schema_grammar(schema: Mapping[str, JsonValue], param: str) -> Grammar:
    """JSON that is valid against a schema. Raises InvalidValueError for one that is over the limits."""
    check_schema(schema, param)
    return Grammar(json.dumps({"grammars": [{"json_schema": embedded_schema(schema)}]}), param)


def regex_grammar(regex: str, param: str) -> Grammar:
    """What a regular expression matches as a whole."""
    check_regex(regex, param)
    return Grammar(LLMatcher.grammar_from_regex(regex), param)


def choice_grammar(choices: Sequence[str], param: str) -> Grammar:
    """One of these texts."""
    check_choices(choices, param)
    alternatives = " | ".join(json.dumps(choice) for choice in choices)
    return Grammar(LLMatcher.grammar_from_lark(f"start: {alternatives}"), param, tuple(choices))


def client_lark_grammar(lark: str, param: str) -> Grammar:
    """A grammar that a client wrote."""
    check_lark(lark, param)
    return lark_grammar(lark, param)


def lark_grammar(lark: str, param: str) -> Grammar:
    """A grammar that the service wrote: nothing about it is checked, what of it is a client's has been."""
    return Grammar(LLMatcher.grammar_from_lark(lark), param)


def embedded_schema(schema: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """The schema with how its JSON is written, to stand behind %json in a Lark grammar."""
    return {**schema, "x-guidance": _JSON_OPTIONS}
