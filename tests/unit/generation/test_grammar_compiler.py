"""Grammars compiled for a byte tokenizer: what is valid, what is a fault, what shall not hurt."""

import asyncio
import json
from typing import Any

import pytest

from service.engine.token_constraint import TokenConstraint
from service.errors import InvalidValueError
from service.generation.grammar import (
    Grammar,
    choice_grammar,
    client_lark_grammar,
    embedded_schema,
    json_schema_grammar,
    lark_grammar,
    regex_grammar,
)
from service.generation.grammar_compiler import GrammarCompiler
from tests.conformance.scripted_service import FIRST_BYTE, TOKEN_IDS, VOCAB_SIZE, ByteTokenizer


def _ref_chain(num_links: int, depth: int) -> dict[str, Any]:
    """Definitions one behind the other, each `depth` arrays deep."""
    definitions: dict[str, Any] = {}
    for index in range(num_links):
        inner: dict[str, Any] = {"type": "integer"}
        if index < num_links - 1:
            inner = {"$ref": f"#/$defs/d{index + 1}"}
        for _ in range(depth):
            inner = {"type": "array", "items": inner}
        definitions[f"d{index}"] = inner
    return {"$ref": "#/$defs/d0", "$defs": definitions}


LARK_CHAIN = "start: r0\n" + "\n".join(f"r{i}: r{i + 1}" for i in range(195)) + '\nr195: "a"'


def new_compiler() -> GrammarCompiler:
    return GrammarCompiler(ByteTokenizer(), VOCAB_SIZE, TOKEN_IDS.eos)


def compiled(grammar: Grammar) -> TokenConstraint:
    return asyncio.run(new_compiler().compile(grammar))


def accepts(constraint: TokenConstraint, text: str) -> bool:
    matcher = constraint.matcher.deep_copy()
    tokens = ByteTokenizer().encode_text(text)
    return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()


RECORD: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Record",
    "type": "object",
    "properties": {"n": {"type": "integer", "description": "how many"}, "s": {"type": "string"}},
    "required": ["n"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("grammar", "good", "bad"),
    [
        (
            json_schema_grammar(RECORD, "p"),
            ['{"n":1}', '{"n": 1, "s": "a"}', '{"n":-7,"s":"é\\n"}'],
            ["{}", '{"s":"a"}', '{"n":1.5}', '{"n":1,"t":2}', '{"n":  1}', ' {"n":1}', '{"n":1}\n', ""],
        ),
        (regex_grammar("[0-9]{2}(px|em)", "p"), ["12px", "12em"], ["12", "1px", "12px "]),
        (
            choice_grammar(["red", 'a "b"\\\n', "é", " x", "\x7f", "😀", "/a/i"], "p"),
            ["red", 'a "b"\\\n', "é", " x", "\x7f", "😀", "/a/i"],
            ["re", "red ", "x", "a"],
        ),
        (
            client_lark_grammar('start: NUM (("+" | "-") NUM)*\nNUM: /[0-9]+/', "p"),
            ["1", "12+3-4"],
            ["+1", "1+", "a"],
        ),
        (
            lark_grammar(f'start: "call " %json {json.dumps(embedded_schema(RECORD))}', "p"),
            ['call {"n": 1}'],
            ['{"n": 1}', 'call {"n":  1}'],
        ),
    ],
    ids=["schema", "regex", "choice", "lark", "embedded"],
)  # fmt: skip
def test_what_is_of_a_grammar(grammar: Grammar, good: list[str], bad: list[str]) -> None:
    constraint = compiled(grammar)
    for text in good:
        assert accepts(constraint, text), text
    for text in bad:
        assert not accepts(constraint, text), text


def test_the_shortest_answer_is_written_as_the_model_writes() -> None:
    class Words(ByteTokenizer):
        vocab_size = VOCAB_SIZE + 1

        def encode_text(self, text: str) -> list[int]:
            return [VOCAB_SIZE] if text == "maybe" else super().encode_text(text)

        def piece_bytes(self, token_id: int) -> bytes:
            return b"maybe" if token_id == VOCAB_SIZE else super().piece_bytes(token_id)

    compiler = GrammarCompiler(Words(), VOCAB_SIZE + 1, TOKEN_IDS.eos)
    choices = choice_grammar(["yes", "no", "maybe"], "p")
    assert asyncio.run(compiler.compile(choices)).shortest == (VOCAB_SIZE,)


def test_special_tokens_and_those_beyond_the_tokenizer_are_no_text() -> None:
    compiler = GrammarCompiler(ByteTokenizer(), VOCAB_SIZE + 40, TOKEN_IDS.eos)
    matcher = asyncio.run(compiler.compile(regex_grammar("(.|\n)*", "p"))).matcher.deep_copy()
    bits = int.from_bytes(matcher.compute_bitmask(), "little")
    allowed = {token_id for token_id in range(VOCAB_SIZE + 40) if bits >> token_id & 1}
    specials = set(TOKEN_IDS.model_dump().values())
    assert allowed & specials == {TOKEN_IDS.eos}
    assert max(allowed) < VOCAB_SIZE
    assert FIRST_BYTE + ord("<") in allowed


FAULTS = [
    regex_grammar("(", "p"),
    regex_grammar("[z-a]", "p"),
    regex_grammar("(?=a)b", "p"),
    regex_grammar(r"(a)\1", "p"),
    regex_grammar("[^\\s\\S]", "p"),
    regex_grammar("(" * 2000 + "a" + ")" * 2000, "p"),
    choice_grammar(["\ud800"], "p"),
    client_lark_grammar("nonsense", "p"),
    client_lark_grammar("start: other", "p"),
    client_lark_grammar('start: start "a"', "p"),
    client_lark_grammar("start: <image>", "p"),
    client_lark_grammar("start: " + "(" * 3000 + '"a"' + ")" * 3000, "p"),
    client_lark_grammar("start: " + " ".join(f'"{chr(97 + i % 26)}"?' for i in range(700)), "p"),
    client_lark_grammar("start: T\nT: /.*a.{20}/ & /.*b.{20}/ & ~/.*c.{20}/", "p"),
    client_lark_grammar(LARK_CHAIN.replace("r195", "r195 r195 r195").replace("r99", "r99 r99"), "p"),
    json_schema_grammar({"type": "nonsense"}, "p"),
    json_schema_grammar({"type": 3}, "p"),
    json_schema_grammar({"enum": []}, "p"),
    json_schema_grammar({"$ref": "#"}, "p"),
    json_schema_grammar({"$ref": "#/$defs/missing"}, "p"),
    json_schema_grammar({"type": "string", "format": "nonsense"}, "p"),
    json_schema_grammar({"type": "string", "pattern": "("}, "p"),
    json_schema_grammar({"type": "object", "required": ["a"], "additionalProperties": False}, "p"),
    json_schema_grammar({"type": "integer", "minimum": 3, "maximum": 2}, "p"),
    json_schema_grammar({"type": "integer", "maximum": 10**400}, "p"),
    json_schema_grammar({"type": "array", "items": {"type": "integer"}, "minItems": 10**6}, "p"),
    json_schema_grammar({"allOf": [{"multipleOf": n} for n in (9999, 9998, 9997)], "type": "integer"}, "p"),
    json_schema_grammar({"properties": {f"p{i}": {} for i in range(1000)}, "type": "object"}, "p"),
]  # fmt: skip


@pytest.mark.parametrize("grammar", FAULTS, ids=range(len(FAULTS)))
def test_faults_are_told_by_the_field_and_tell_nothing_of_the_library(grammar: Grammar) -> None:
    with pytest.raises(InvalidValueError) as caught:
        compiled(grammar)
    assert caught.value.param == "p"
    assert caught.value.message.startswith(("this cannot be compiled: ", "no answer was found "))


@pytest.mark.parametrize(
    "grammar",
    [
        regex_grammar("(a{1,1000}){1,1000}", "p"),
        regex_grammar(".{0,100000}", "p"),
        regex_grammar("((((a*)*)*)*)*b", "p"),
        regex_grammar("(a|b)*a(a|b){25}", "p"),
        regex_grammar("(x+x+)+y", "p"),
        regex_grammar("|".join(f"(a{i}b?)*" for i in range(350)), "p"),
        client_lark_grammar(LARK_CHAIN, "p"),
        client_lark_grammar('start: e\ne: e e | e e e | "a" | ', "p"),
        client_lark_grammar("start: x{0,100000}\nx: /a/ | /b+/", "p"),
        json_schema_grammar(_ref_chain(32, 16), "p"),
        json_schema_grammar({"type": "integer", "multipleOf": 9973}, "p"),
        json_schema_grammar({"type": "string", "maxLength": 10**9}, "p"),
        json_schema_grammar({"enum": [f"option {i}" for i in range(2000)]}, "p"),
    ],
    ids=range(13),
)
def test_what_looks_like_a_bomb_is_followed_without_harm(grammar: Grammar) -> None:
    constraint = compiled(grammar)
    matcher = constraint.matcher.deep_copy()
    for token_id in constraint.shortest[:20]:
        matcher.compute_bitmask()
        assert matcher.consume_token(token_id)
    assert not matcher.is_error()


async def test_many_compile_at_once_and_one_that_is_left_gives_its_turn_back() -> None:
    compiler = new_compiler()
    left = asyncio.create_task(compiler.compile(json_schema_grammar(RECORD, "p")))
    await asyncio.sleep(0)
    left.cancel()
    with pytest.raises(asyncio.CancelledError):
        await left
    grammars = [regex_grammar(f"[a-z]{{{n}}}", "p") for n in range(1, 9)]
    constraints = await asyncio.gather(*map(compiler.compile, grammars))
    assert [len(constraint.shortest) for constraint in constraints] == list(range(1, 9))
    with pytest.raises(InvalidValueError):
        await compiler.compile(regex_grammar("(", "p"))
    assert (await compiler.compile(grammars[0])).shortest


async def test_what_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.generation.grammar_compiler.MAX_COMPILE_S", 0.0)
    compiler = new_compiler()
    with pytest.raises(InvalidValueError, match="too long") as caught:
        await compiler.compile(json_schema_grammar(RECORD, "p"))
    assert caught.value.param == "p"
    monkeypatch.undo()
    assert (await compiler.compile(json_schema_grammar(RECORD, "p"))).shortest, "the turn came back"


def test_a_panic_of_the_library_is_the_grammars_fault() -> None:
    class Raising(ByteTokenizer):
        def encode_text(self, text: str) -> list[int]:
            if text == "test":  # what the library tries first of all
                return []
            raise RuntimeError("secret")

    compiler = GrammarCompiler(Raising(), VOCAB_SIZE, TOKEN_IDS.eos)
    with pytest.raises(InvalidValueError) as caught:
        asyncio.run(compiler.compile(json_schema_grammar(RECORD, "p")))
    assert "secret" not in caught.value.message
