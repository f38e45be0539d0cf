"""The reader of calls: whatever the pieces, the call and the text are the same."""

import json
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.generation.tool_calls import CallDelta, ToolCallReader
from service.prompt.tool_text import call_text

NAMES = ("f", "ff", "get_weather")
_ARGUMENTS = st.dictionaries(
    st.text(max_size=4), st.none() | st.text(max_size=9) | st.lists(st.sampled_from(['{"', "}"])), max_size=3
)
_Judge = Callable[[str], bool] | None


def _read(pieces: Sequence[str], is_call: _Judge) -> tuple[list[str], list[CallDelta]]:
    reader = ToolCallReader(NAMES, is_call)
    texts, calls = [], []
    for index, piece in enumerate(pieces):
        text, call = reader.push(piece, final=index == len(pieces) - 1)
        texts.append(text)
        calls += [call] if call is not None else []
        assert not (text and call), "an answer is one of the two"
    assert reader.has_called == bool(calls)
    assert not (any(texts) and calls)
    return texts, calls


def _is_call(text: str) -> bool:
    """What a grammar of calls without parameters' schemas would say."""
    try:
        value = json.loads(text)
    except ValueError:
        return False
    return isinstance(value, dict) and value.keys() == {"name", "arguments"}


@st.composite
def _pieces(draw: st.DrawFn, texts: st.SearchStrategy[str]) -> list[str]:
    """A text in pieces, some of them empty."""
    text = draw(texts)
    cuts = sorted(draw(st.lists(st.integers(0, len(text)))))
    return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


_CALLS = st.builds(
    lambda name, arguments: call_text(name, json.dumps(arguments)), st.sampled_from(NAMES), _ARGUMENTS
)
_TEXTS = st.text() | st.builds(lambda call, n: call[:n], _CALLS, st.integers(0, 200))
_TEXTS |= st.builds(lambda call, text: call + text, _CALLS, st.text(min_size=1).map(lambda t: f"x{t}"))


@given(_pieces(_CALLS), st.sampled_from([None, _is_call]))
def test_a_call_is_told_whole_and_nothing_of_it_as_text(pieces: list[str], judge: _Judge) -> None:
    texts, calls = _read(pieces, judge)
    call = json.loads("".join(pieces))
    assert not any(texts)
    assert [delta.is_first for delta in calls] == [True] + [False] * (len(calls) - 1)
    assert {(delta.name, delta.id) for delta in calls} == {(call["name"], calls[0].id)}
    arguments = "".join(delta.arguments for delta in calls)
    assert arguments in "".join(pieces)
    assert json.loads(arguments) == call["arguments"]


@given(_pieces(_TEXTS.filter(lambda text: not _is_call(text))))
def test_what_is_no_call_stays_text(pieces: list[str]) -> None:
    texts, calls = _read(pieces, _is_call)
    assert "".join(texts) == "".join(pieces)
    assert not calls


@given(st.text(), st.text())
def test_text_is_held_only_while_it_may_be_a_call(first: str, second: str) -> None:
    reader = ToolCallReader(NAMES, _is_call)
    assert reader.push(f"A{first}", final=False) == (f"A{first}", None)
    assert reader.push(second, final=False) == (second, None)


def test_arguments_come_as_they_are_made() -> None:
    _, calls = _read(list(call_text("ff", '{"a": {}}')), None)
    assert calls[0].arguments == "", "the name comes first"
    assert [delta.arguments for delta in calls[1:]] == list('{"a": {}}')


def test_a_call_that_may_yet_fail_comes_in_one() -> None:
    _, calls = _read(list(call_text("f", "{}")), _is_call)
    assert [(delta.name, delta.arguments) for delta in calls] == [("f", "{}")]


def test_ids_differ() -> None:
    ids = {_read([call_text("f", "{}")], None)[1][0].id for _ in range(9)}
    assert len(ids) == 9
    assert all(call_id.startswith("call_") for call_id in ids)


@pytest.mark.parametrize("text", ["", "{", '{"name": "g', '{"name": "f", "arguments": '])
def test_what_ends_too_early_is_text(text: str) -> None:
    assert _read([text], _is_call) == ([text], [])
