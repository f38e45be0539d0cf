"""Ways out of a grammar: short, valid, and never sought for long."""

import numpy as np
import pytest
from llguidance import LLMatcher

from service.engine.closing import Closing
from service.engine.token_constraint import TokenConstraint
from service.generation.grammar import Grammar, json_schema_grammar, lark_grammar, regex_grammar
from tests.unit.engine.grammars import TOKENS, compiled, schema, text_of
from tests.unit.engine.scripted_model import EOS

INTEGER, STRING = {"type": "integer"}, {"type": "string"}
PAIR = {"type": "array", "minItems": 2}
CLOSED = {"type": "object", "additionalProperties": False}


@pytest.mark.parametrize(
    ("keywords", "shortest"),
    [
        ({"type": "object"}, b"{}"),
        ({"type": "array"}, b"[]"),
        ({"type": "string", "minLength": 3}, b'"000"'),
        ({"type": "integer", "minimum": 25, "maximum": 31}, b"25"),
        ({"enum": ["rare", "red"]}, b'"rare"'),
        ({**CLOSED, "properties": {"a": INTEGER, "b": STRING}, "required": ["a"]}, b'{"a":0}'),
        ({"type": "array", "items": {**PAIR, "items": INTEGER}, "minItems": 1}, b"[[0,0]]"),
        ({"type": "string", "format": "uuid"}, b'"00000000-0000-0000-0000-000000000000"'),
    ],
)  # fmt: skip
def test_the_shortest_answers_of_schemas(keywords: dict[str, object], shortest: bytes) -> None:
    assert text_of(schema(**keywords).shortest) == shortest


@pytest.mark.parametrize(
    ("regex", "length"),
    [
        (r"[0-9]+x", 2),  # the first token allowed leads nowhere
        (r".*[0-9]{4}.*", 3),  # taking turns leads nowhere: a quote that ends nothing, three digits
        (r"[a-e]*f", 6),  # nothing but trying all
        (r"[0-9]+(, [a-f]+)+x", 10),  # where classes take turns, x never has its one
        (r"(true|false)", 1),
        (r"é{2}", 2),
    ],
)
def test_regular_expressions_need_either_walk(regex: str, length: int) -> None:
    assert len(compiled(regex_grammar(regex, "test")).shortest) == length


def allowed(matcher: LLMatcher) -> list[int]:
    bits = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8), bitorder="little")
    return [int(token_id) for token_id in np.flatnonzero(bits)]


def is_answer(constraint: TokenConstraint, token_ids: list[int]) -> bool:
    matcher = constraint.matcher.deep_copy()
    return matcher.consume_tokens(token_ids) and matcher.is_accepting()


NESTED: dict[str, object] = {
    **CLOSED,
    "properties": {"a": {"type": "array", "items": {"anyOf": [INTEGER, STRING, {"$ref": "#"}]}}, "b": STRING},
    "required": ["a", "b"],
}


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(
    "grammar",
    [
        json_schema_grammar(NESTED, "test"),  # type: ignore[arg-type]
        json_schema_grammar({"type": "object"}, "test"),
        regex_grammar(r"([a-f]+[0-9]?, )*x[0-9]{2}", "test"),
        lark_grammar('start: e\ne: "[" e "]" | e "-" e | /[0-9]+/', "test"),
    ],
    ids=["nested", "any", "regex", "lark"],
)  # fmt: skip
def test_from_anywhere_the_way_found_ends_and_known_ways_are_taken_up(grammar: Grammar, seed: int) -> None:
    constraint = compiled(grammar)
    generator, matcher, tokens = np.random.default_rng(seed), constraint.matcher.deep_copy(), list[int]()
    way = constraint.shortest
    for _ in range(25):
        token_id = int(generator.choice(allowed(matcher)))
        if token_id == EOS:
            break
        assert matcher.consume_token(token_id)
        tokens.append(token_id)
        found = constraint.closing.find(matcher, way, 200, 100)
        assert found is not None
        assert is_answer(constraint, [*tokens, *found])
        assert len(found) == 0 or constraint.closing.find(matcher, found, len(found) - 1, 0) != found
        way = found


def test_it_stays_within_its_bounds() -> None:
    constraint = schema(type="array", items=INTEGER, minItems=50)
    assert len(constraint.shortest) == 101
    closing, matcher = constraint.closing, constraint.matcher
    assert closing.find(matcher, (), 101, 101) is not None
    assert closing.find(matcher, (), 100, 101) is None, "it would be too long"
    assert closing.find(matcher, (), 101, 99) is None, "it would look too far"
    assert closing.find(matcher, constraint.shortest, 101, 0) == constraint.shortest, "known is known"
    assert closing.find(matcher, constraint.shortest, 100, 0) is None
    assert not matcher.is_accepting(), "the matcher has not moved"


def test_without_tokens_for_single_bytes_only_what_is_forced_is_found() -> None:
    constraint = compiled(regex_grammar("true", "test"))
    closing = Closing({}, EOS)
    assert closing.shortest(constraint.matcher, 9) == (TOKENS.index(b"true"),)
    assert closing.shortest(compiled(regex_grammar("[0-9]", "test")).matcher, 9) is None
