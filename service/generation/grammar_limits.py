"""How large a grammar of a client may be, checked before the library sees it; compiles nothing.

The library's own limits (grammar_compiler.py) bound what compiling and masking cost. They do not bound its
recursion: a chain of some thousand definitions overflows the stack and ends the process. Here such chains
are kept below half of that, see decision 17.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence

from pydantic import JsonValue

from service.errors import InvalidValueError

MAX_SCHEMA_LENGTH = 64 << 10  # characters of its JSON
MAX_SCHEMA_DEPTH = 20  # objects and lists inside one another
MAX_SCHEMA_NODES = 4096  # values in it, of any kind
MAX_SCHEMA_REFS = 32  # different targets of $ref; with MAX_SCHEMA_DEPTH, bounds the library's recursion
MAX_MULTIPLE_OF_DIGITS = 4  # significant digits; the library's work grows with the number they make
MAX_REGEX_LENGTH = 4096
MAX_CHOICES = 512
MAX_CHOICES_LENGTH = 16 << 10  # characters of all together
MAX_LARK_LENGTH = 8 << 10
MAX_LARK_COLONS = 200  # no fewer than there are definitions, which may form a chain

_MULTIPLE_OF = re.compile(r"0*\.?0*(\d*?)0*(?:\.(\d*))?0*(?:e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
# Another grammar inside (which would need limits of its own), a token by its id, what only looks as if it
# had an influence.
_REFUSED_IN_LARK = ("%json", "%lark", "%llguidance", "<[", "temperature=", "temperature =")
# JSON Schema's own words that the library does not follow. It would refuse them too, without a name.
_REFUSED_KEYWORDS = frozenset(
    (
        "$dynamicAnchor",
        "$recursiveRef",
        "contains",
        "dependencies",
        "dependentRequired",
        "dependentSchemas",
        "else",
        "if",
        "maxContains",
        "minContains",
        "not",
        "propertyNames",
        "then",
        "unevaluatedItems",
        "unevaluatedProperties",
        "uniqueItems",
    )
)
# Where schemas lie inside a schema: under names of the client's own, and else. All other values are data.
_NAMED_SCHEMAS = ("properties", "patternProperties", "$defs", "definitions")
_SCHEMAS = ("items", "prefixItems", "additionalProperties", "anyOf", "allOf", "oneOf")


def check_schema(schema: Mapping[str, JsonValue], param: str) -> None:
    """Raises InvalidValueError for a schema that is over a limit."""
    if "x-guidance" in schema:
        raise InvalidValueError("x-guidance is not supported in a schema", param)
    targets = set()
    for num_nodes, (key, value, depth) in enumerate(_nodes(schema), 1):
        if num_nodes > MAX_SCHEMA_NODES:
            raise InvalidValueError(f"the schema has more than {MAX_SCHEMA_NODES} values", param)
        if depth > MAX_SCHEMA_DEPTH:
            raise InvalidValueError(
                f"the schema is nested more than {MAX_SCHEMA_DEPTH} deep: move parts to $defs", param
            )
        if key in ("$ref", "$dynamicRef") and isinstance(value, str):
            if not value.startswith("#"):
                raise InvalidValueError("a $ref must begin with #: nothing is fetched", param)
            targets.add(value)
        _check_keyword(key, value, param)
    if len(json.dumps(schema)) > MAX_SCHEMA_LENGTH:
        raise InvalidValueError(f"the schema has more than {MAX_SCHEMA_LENGTH} characters", param)
    if len(targets) > MAX_SCHEMA_REFS:
        raise InvalidValueError(f"the schema refers to more than {MAX_SCHEMA_REFS} definitions", param)
    for refused in (_REFUSED_KEYWORDS & inner.keys() for inner in _schemas(schema)):
        if refused:
            raise InvalidValueError(f"the keyword '{min(refused)}' is not supported in a schema", param)


def check_regex(regex: str, param: str) -> None:
    """Raises InvalidValueError for an expression that is over the limit or no text."""
    if len(regex) > MAX_REGEX_LENGTH:
        raise InvalidValueError(f"a regular expression has at most {MAX_REGEX_LENGTH} characters", param)
    _check_text(regex, param)


def check_choices(choices: Sequence[str], param: str) -> None:
    """Raises InvalidValueError for a list that is empty, has an empty text or is over a limit."""
    if not choices or not all(choices):
        raise InvalidValueError("there must be at least one choice, and none may be empty", param)
    if len(choices) > MAX_CHOICES:
        raise InvalidValueError(f"there may be {MAX_CHOICES} choices", param)
    if sum(map(len, choices)) > MAX_CHOICES_LENGTH:
        raise InvalidValueError(f"the choices have more than {MAX_CHOICES_LENGTH} characters together", param)


def check_lark(lark: str, param: str) -> None:
    """Raises InvalidValueError for a grammar that is over a limit, no text, or has what is not supported."""
    if len(lark) > MAX_LARK_LENGTH:
        raise InvalidValueError(f"a grammar has at most {MAX_LARK_LENGTH} characters", param)
    _check_text(lark, param)
    if lark.count(":") > MAX_LARK_COLONS:
        raise InvalidValueError(f"a grammar has at most {MAX_LARK_COLONS} definitions", param)
    for part in _REFUSED_IN_LARK:
        if part in lark:
            raise InvalidValueError(f"{part} is not supported in a grammar", param)


def _check_text(text: str, param: str) -> None:
    """JSON can carry half a surrogate pair, which the library's strings cannot."""
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise InvalidValueError("the text holds half a character", param)


def _check_keyword(key: str, value: JsonValue, param: str) -> None:
    if key == "pattern" and isinstance(value, str):
        check_regex(value, param)
    if key == "multipleOf" and isinstance(value, int | float):
        match = _MULTIPLE_OF.fullmatch(repr(value))
        digits = "".join(match.groups(default="")) if match else str(value)
        if len(digits.strip("0")) > MAX_MULTIPLE_OF_DIGITS:
            raise InvalidValueError(f"multipleOf may have {MAX_MULTIPLE_OF_DIGITS} significant digits", param)


def _nodes(schema: Mapping[str, JsonValue]) -> Iterator[tuple[str, JsonValue, int]]:
    """Every value in a schema with its key ("" in a list) and how deep it lies; without recursion."""
    left: list[tuple[str, JsonValue, int]] = [("", dict(schema), 1)]
    while left:
        key, value, depth = left.pop()
        yield key, value, depth
        if isinstance(value, dict):
            left += [(name, child, depth + 1) for name, child in value.items()]
        elif isinstance(value, list):
            left += [("", child, depth + 1) for child in value]


def _schemas(schema: Mapping[str, JsonValue]) -> Iterator[dict[str, JsonValue]]:
    """A schema and those inside it; a property may be named like a keyword. Without recursion."""
    left: list[JsonValue] = [dict(schema)]
    while left:
        inner = left.pop()
        if isinstance(inner, list):
            left += inner
        elif isinstance(inner, dict):
            yield inner
            left += [inner[key] for key in _SCHEMAS if key in inner]
            for names in (inner.get(key) for key in _NAMED_SCHEMAS):
                left += names.values() if isinstance(names, dict) else ()
