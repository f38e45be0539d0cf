"""One answer in its grammar: exact masks, an end in time whatever the model wants, and failures."""

import json
import logging
from collections.abc import Callable
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llguidance import LLMatcher
from numpy.typing import NDArray

from service.engine.answer_matcher import AnswerMatcher
from service.engine.closing import Closing
from service.engine.token_constraint import TokenConstraint
from service.generation.grammar import lark_grammar, regex_grammar
from tests.unit.engine.grammars import TOKENS, compiled, schema, text_of
from tests.unit.engine.scripted_model import EOS, VOCAB_SIZE

Choose = Callable[[NDArray[np.float32]], int]
RECORD = {
    "type": "object",
    "properties": {
        "a": {"type": "array", "items": {"enum": ["red", "blue", 3, None, "é"]}, "maxItems": 3},
        "b": {"type": "string", "minLength": 1, "maxLength": 4},
    },
    "required": ["a", "b"],
    "additionalProperties": False,
}


def matcher_of(constraint: TokenConstraint, max_tokens: int) -> AnswerMatcher:
    return AnswerMatcher(constraint, max_tokens, EOS, VOCAB_SIZE)


def masked(matcher: AnswerMatcher, logits: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    row = np.zeros(VOCAB_SIZE, dtype=np.float32) if logits is None else logits.copy()
    matcher.prepare()
    matcher.mask(row)
    return row


def answer(
    matcher: AnswerMatcher, seed: int, max_tokens: int, bias: dict[int, float] | None = None
) -> list[int]:
    """What a model of random logits answers; it ends as the engine would."""
    generator, tokens = np.random.default_rng(seed), list[int]()
    while len(tokens) < max_tokens and tokens[-1:] != [EOS]:
        logits = generator.normal(0, 1, VOCAB_SIZE).astype(np.float32)
        for token_id, value in (bias or {}).items():
            logits[token_id] += value
        tokens.append(matcher.settle(int(masked(matcher, logits).argmax())))
        assert not matcher.is_failed
    return tokens


@pytest.mark.parametrize("seed", range(5))
def test_masks_are_those_of_trying_every_token(seed: int) -> None:
    constraint = schema(**RECORD)
    matcher, tokens = matcher_of(constraint, 60), list[int]()
    generator = np.random.default_rng(seed)
    while tokens[-1:] != [EOS]:
        row = masked(matcher)
        for token_id in range(VOCAB_SIZE):
            naive = constraint.matcher.deep_copy()
            fits = naive.consume_tokens(tokens)
            forced = naive.compute_ff_tokens()
            if token_id == EOS:
                fits = fits and naive.is_accepting()
            elif forced:  # of several ways to write what is forced, the model's own
                fits = fits and token_id == forced[0]
            else:  # the special tokens have no bytes, so none of them ever fits
                fits = fits and token_id > EOS and naive.validate_tokens([token_id]) == 1
            assert (row[token_id] == 0) == fits, (tokens, token_id)
        assert set(row.tolist()) <= {0.0, -np.inf}
        tokens.append(matcher.settle(int(generator.choice(np.flatnonzero(row == 0)))))
    assert not matcher.is_cut


def _schemas() -> st.SearchStrategy[dict[str, Any]]:
    leaves: st.SearchStrategy[dict[str, Any]] = st.one_of(
        st.sampled_from([{"type": kind} for kind in ("integer", "number", "boolean", "null", "string")]),
        st.tuples(st.integers(0, 3), st.integers(3, 6)).map(
            lambda size: {"type": "string", "minLength": size[0], "maxLength": size[1]}
        ),
        st.lists(st.sampled_from(["a", "red", "é", 1, -2.5, None, True]), min_size=1, max_size=3).map(
            lambda values: {"enum": values}
        ),
        st.integers(-9, 99).map(lambda least: {"type": "integer", "minimum": least, "maximum": least + 120}),
    )

    def within(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
        properties = st.dictionaries(st.sampled_from(["a", "b", "x1", "é"]), inner, max_size=3)
        return st.one_of(
            st.tuples(inner, st.integers(0, 2)).map(
                lambda parts: {"type": "array", "items": parts[0], "minItems": parts[1]}
            ),
            st.tuples(properties, st.booleans(), st.integers(0, 3)).map(
                lambda parts: {
                    "type": "object",
                    "properties": parts[0],
                    "required": list(parts[0])[: parts[2]],
                    "additionalProperties": parts[1],
                }
            ),
            st.lists(inner, min_size=1, max_size=2).map(lambda branches: {"anyOf": branches}),
        )

    return st.recursive(leaves, within, max_leaves=5)


@settings(max_examples=60, deadline=None)
@given(_schemas(), st.integers(0, 1 << 32))
def test_answers_are_valid_at_every_length(keywords: dict[str, Any], seed: int) -> None:
    constraint = schema(**keywords)
    for max_tokens in range(max(len(constraint.shortest), 1), 41):
        tokens = answer(matcher_of(constraint, max_tokens), seed, max_tokens)
        jsonschema.validate(json.loads(text_of(tokens)), keywords)


@pytest.mark.parametrize("max_tokens", range(4, 30))
@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        (regex_grammar(r"[0-9]+(, [a-f]+)+x", "test"), "a"),
        (regex_grammar("(é|a)*,.{3}", "test"), "a"),
        (lark_grammar('start: "[" e "]"\ne: "[" e "]" | e "," e | /[0-9]+/', "test"), "["),
        (regex_grammar("(true|false| |null)*xx", "test"), "t"),
    ],
    ids=["list", "text", "nested", "words"],
)
def test_other_grammars_end_in_time_though_the_model_never_wants_to(
    source: Any, wanted: str, max_tokens: int
) -> None:
    constraint = compiled(source)
    if max_tokens < len(constraint.shortest):
        return
    endless = {TOKENS.index(wanted.encode()): 50.0, EOS: -50.0}
    matcher = matcher_of(constraint, max_tokens)
    tokens = answer(matcher, 1, max_tokens, endless)
    whole = constraint.matcher.deep_copy()
    assert whole.consume_tokens([token_id for token_id in tokens if token_id != EOS])
    assert whole.is_accepting()
    assert len(tokens) >= max_tokens - 3, "it is not cut before it must be"


def test_an_answer_that_ends_by_itself_is_not_cut_and_one_that_must_end_is() -> None:
    constraint = schema(**RECORD)
    soon = {TOKENS.index(mark): 9.0 for mark in (b"]", b'"', b"}")}
    free = matcher_of(constraint, 40)
    answer(free, 2, 40, soon)
    assert not free.is_cut
    short = matcher_of(constraint, len(constraint.shortest) + 1)
    answer(short, 2, len(constraint.shortest) + 1, {TOKENS.index(b","): 9.0, TOKENS.index(b"]"): -9.0})
    assert short.is_cut


def test_a_state_that_is_content_but_must_not_go_on_ends_with_eos() -> None:
    constraint = compiled(regex_grammar("a(bc)*", "test"))
    matcher = matcher_of(constraint, 2)
    assert text_of([matcher.settle(TOKENS.index(b"a"))]) == b"a"
    assert np.flatnonzero(masked(matcher) == 0).tolist() == [EOS, TOKENS.index(b"b")]
    assert matcher.settle(TOKENS.index(b"b")) == EOS, "there is no room for the c"
    assert matcher.is_cut


def test_forks_go_their_own_ways() -> None:
    constraint = schema(**RECORD)
    first = matcher_of(constraint, 40)
    for token_id in constraint.shortest[:3]:
        masked(first)
        first.settle(token_id)
    row = masked(first)
    fork = first.fork()
    untouched = np.zeros(VOCAB_SIZE, dtype=np.float32)
    fork.mask(untouched)
    assert np.array_equal(untouched, row), "the mask came along"
    begin = list(constraint.shortest[:3])
    tails = [answer(matcher, seed, 37) for matcher, seed in ((first, 1), (fork, 2))]
    assert tails[0] != tails[1]
    for tail in tails:
        jsonschema.validate(json.loads(text_of(begin + tail)), RECORD)


def test_a_way_that_is_hard_to_find_is_sought_a_few_times_only(monkeypatch: pytest.MonkeyPatch) -> None:
    constraint = compiled(regex_grammar("[a-f]*(0{20})+", "test"))
    searches = list[int]()
    find = Closing.find

    def counted(closing: Closing, matcher: LLMatcher, known: Any, *bounds: int) -> Any:
        searches.append(1)
        return None if len(searches) > 5 else find(closing, matcher, known, *bounds)

    monkeypatch.setattr(Closing, "find", counted)
    matcher = matcher_of(constraint, 200)
    tokens = answer(matcher, 3, 200, {TOKENS.index(b"a"): 20.0, EOS: -20})
    assert len(searches) <= 5 + 1024 // 150
    whole = constraint.matcher.deep_copy()
    assert whole.consume_tokens([token_id for token_id in tokens if token_id != EOS])
    assert whole.is_accepting()


def test_what_the_library_gives_up_on_is_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    properties = {f"a{index}": {"type": "integer"} for index in range(1500)}
    small = schema(type="object")
    source = json.dumps({"grammars": [{"json_schema": {"type": "object", "properties": properties}}]})
    too_wide = LLMatcher(_tokenizer(), source, log_level=0)
    matcher = matcher_of(TokenConstraint(too_wide, small.closing, ()), 40)
    masked(matcher)
    assert [record.message for record in caplog.records] == []
    with caplog.at_level(logging.WARNING):
        matcher._matcher.consume_token(TOKENS.index(b"{"))
        matcher.prepare()
    assert matcher.is_failed
    assert [record.message for record in caplog.records] == ["a grammar could not be followed: InternalError"]


def test_a_panic_is_a_failure_too(monkeypatch: pytest.MonkeyPatch) -> None:
    class Panic(BaseException):
        pass

    def panic(*arguments: object) -> None:
        raise Panic

    matcher = matcher_of(schema(type="object"), 9)
    monkeypatch.setattr(Closing, "find", panic)
    matcher.prepare()
    assert not matcher.is_failed
    matcher.settle(TOKENS.index(b"{"))
    assert matcher.is_failed


def _tokenizer() -> Any:
    from service.generation.grammar_compiler import _Vocabulary
    from tests.unit.engine.grammars import SmallVocabulary

    return _Vocabulary(SmallVocabulary(), VOCAB_SIZE, EOS)._tokenizer
