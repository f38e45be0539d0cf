"""Stop strings are found wherever the text is cut."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.prompt.stop_strings import StopStrings


def run(pieces: list[str], stops: list[str], include: bool = False) -> tuple[str, str | None]:
    search = StopStrings(stops, include)
    visible, matched = "", None
    for piece in pieces:
        text, matched = search.push(piece)
        visible += text
    return visible + search.flush(), matched


@pytest.mark.parametrize(
    ("text", "stops", "expected"),
    [
        ("hello world", ["lo w"], ("hel", "lo w")),
        ("hello", ["x"], ("hello", None)),
        ("hello", [], ("hello", None)),
        ("abcd", ["abcd", "bc"], ("a", "bc")),
        ("abcd", ["d", "abcd"], ("", "abcd")),
        ("aab", ["ab"], ("a", "ab")),
        ("ababac", ["abac"], ("ab", "abac")),
        ("stop", ["stop now"], ("stop", None)),
        ("end\n\nmore", ["\n\n"], ("end", "\n\n")),
    ],
)
def test_matches(text: str, stops: list[str], expected: tuple[str, str | None]) -> None:
    assert run([text], stops) == expected
    assert run(list(text), stops) == expected


def test_the_stop_can_stay() -> None:
    assert run(list("a stop b"), ["stop"], include=True) == ("a stop", "stop")


def test_only_a_beginning_of_a_stop_is_held_back() -> None:
    search = StopStrings(["\nUser:", "###"])
    assert search.push("Hi #") == ("Hi ", None)
    assert search.push("1") == ("#1", None)
    assert search.push("##") == ("", None)
    assert search.push("x\n") == ("##x", None)
    assert search.push("User") == ("", None)
    assert search.push(": more") == ("", "\nUser:")
    assert search.push("never") == ("", "\nUser:")
    assert search.flush() == ""


def test_no_stop_holds_nothing_back() -> None:
    assert StopStrings([]).push("a") == ("a", None)


def _simple(text: str, stops: list[str], include: bool) -> tuple[str, str | None]:
    """Read character by character until one is complete."""
    for end in range(1, len(text) + 1):
        hits = [stop for stop in stops if text[:end].endswith(stop)]
        if hits:
            longest = max(hits, key=len)
            return text[: end if include else end - len(longest)], longest
    return text, None


@settings(max_examples=60, deadline=None)
@given(
    pieces=st.lists(st.text(alphabet="ab\n", max_size=4), max_size=10),
    stops=st.lists(st.text(alphabet="ab\n", min_size=1, max_size=4), max_size=3),
    include=st.booleans(),
)
def test_any_cutting_gives_the_whole_texts_answer(pieces: list[str], stops: list[str], include: bool) -> None:
    assert run([*pieces, ""], stops, include) == _simple("".join(pieces), stops, include)


@settings(max_examples=60, deadline=None)
@given(
    pieces=st.lists(st.text(alphabet="ab", max_size=3), max_size=8),
    stops=st.lists(st.text(alphabet="ab", min_size=1, max_size=4), min_size=1, max_size=3),
)
def test_what_is_held_back_begins_a_stop(pieces: list[str], stops: list[str]) -> None:
    search = StopStrings(stops)
    seen, shown = "", ""
    for piece in pieces:
        text, matched = search.push(piece)
        if matched is not None:
            break
        seen, shown = seen + piece, shown + text
        held = seen[len(shown) :]
        assert not held or any(stop.startswith(held) and stop != held for stop in stops)
