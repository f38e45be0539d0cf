"""What may be called: the grammar gives valid calls and takes no others."""

import asyncio
import json
from typing import Any

import jsonschema
import numpy as np
import pytest

from service.engine.answer_matcher import AnswerMatcher
from service.engine.token_constraint import TokenConstraint
from service.generation.choice_parameters import ChoiceParams
from service.generation.grammar_compiler import GrammarCompiler
from service.generation.tool_calls import ToolCallReader
from service.generation.tool_offer import ToolOffer, read_tools
from service.prompt.tool_text import call_text
from service.protocol.chat_request import ChatCompletionRequest
from tests.conformance.scripted_service import FIRST_BYTE, TOKEN_IDS, VOCAB_SIZE, ByteTokenizer

PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "at": {"$ref": "#/$defs/place"},
        "unit": {"enum": ["°C", "°F", None]},
    },
    "required": ["city", "unit"],
    "$defs": {"place": {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}},
}
COMPILER = GrammarCompiler(ByteTokenizer(), VOCAB_SIZE, TOKEN_IDS.eos)


def _offer(*functions: dict[str, Any], **fields: Any) -> ToolOffer:
    tools = [{"type": "function", "function": function} for function in functions]
    messages = [{"role": "user", "content": "x"}]
    request = ChatCompletionRequest.model_validate({"messages": messages, "tools": tools} | fields)
    offer = read_tools(request, ChoiceParams(1, None, None))
    assert offer is not None
    return offer


def _compiled(offer: ToolOffer) -> TokenConstraint:
    return asyncio.run(COMPILER.compile(offer.grammar))


def _takes(parameters: dict[str, Any] | None, arguments: str) -> bool:
    function = {"name": "f"} if parameters is None else {"name": "f", "parameters": parameters}
    return COMPILER.matches(_compiled(_offer(function)), call_text("f", arguments))


def _random_answer(constraint: TokenConstraint, max_tokens: int, seed: int) -> str:
    """What the engine would give with a model that knows nothing."""
    random, matcher = np.random.default_rng(seed), AnswerMatcher(constraint, max_tokens, 2, VOCAB_SIZE)
    answer = b""
    for _ in range(max_tokens):
        matcher.prepare()
        logits = random.normal(size=VOCAB_SIZE).astype(np.float32)
        logits[FIRST_BYTE + ord('"')] += 2  # else strings never end
        matcher.mask(logits)
        token_id = matcher.settle(int(logits.argmax()))
        if token_id == TOKEN_IDS.eos:
            break
        answer += ByteTokenizer().piece_bytes(token_id)
    assert not matcher.is_failed
    return answer.decode()


def test_whatever_the_model_prefers_and_however_short_a_call_is_valid() -> None:
    offer = _offer({"name": "get_weather", "parameters": PARAMETERS}, {"name": "now"}, tool_choice="required")
    constraint = _compiled(offer)
    schemas = {"get_weather": PARAMETERS, "now": {"type": "object", "maxProperties": 0}}
    called = set()
    for seed in range(60):
        answer = _random_answer(constraint, len(constraint.shortest) + seed, seed)
        text, call = ToolCallReader(offer.names, None).push(answer, final=True)
        assert not text
        assert call is not None
        jsonschema.validate(json.loads(call.arguments), schemas[call.name])
        assert COMPILER.matches(constraint, answer)
        called.add(call.name)
    assert called == set(schemas)


@pytest.mark.parametrize(
    ("parameters", "taken", "refused"),
    [
        (None, "{}", '{"x": 1}'),
        ({"type": "object", "properties": {}}, "{}", '{"x": 1}'),
        ({"properties": {"x": {"type": "integer"}}}, '{"x": 1}', '{"x": 1, "y": 2}'),
        ({"properties": {"x": {"type": "integer"}}}, "{}", "5"),
        ({"properties": {}, "additionalProperties": {"type": "integer"}}, '{"y": 2}', '{"y": "2"}'),
        ({"type": "object"}, '{"y": [2]}', "[2]"),
        ({}, "{}", '"x"'),
        (PARAMETERS, '{"city": "Oslo", "unit": "°C"}', '{"unit": "°C", "city": "Oslo"}'),
        (PARAMETERS, '{"city":"Oslo","at":{"x":1},"unit":null}', '{"city": "Oslo", "at": 1, "unit": null}'),
        (
            {"$ref": "#/$defs/a", "$defs": {"a": {"properties": {"x": {"type": "null"}}, "required": ["x"]}}},
            '{"x": null}',
            "{}",
        ),
    ],
)
def test_what_a_call_may_hold(parameters: dict[str, Any] | None, taken: str, refused: str) -> None:
    assert _takes(parameters, taken)
    assert not _takes(parameters, refused)


def test_a_named_function_is_told_with_all_and_called_alone() -> None:
    named = {"type": "function", "function": {"name": "b"}}
    offer = _offer({"name": "a"}, {"name": "b"}, tool_choice=named)
    assert offer.text == _offer({"name": "a"}, {"name": "b"}).text, "the same prefix is cached for all"
    assert (offer.names, offer.is_forced) == (("b",), True)
    constraint = _compiled(offer)
    assert COMPILER.matches(constraint, call_text("b", "{}"))
    assert not COMPILER.matches(constraint, call_text("a", "{}"))
