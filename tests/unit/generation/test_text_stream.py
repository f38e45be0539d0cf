"""The same visible text, count and reason however the tokens are bundled into events."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from service.engine.token_events import TokenEvent, TokenLogprobs
from service.generation.text_stream import TextDelta, TextStream
from service.generation.token_logprobs import LogprobNames
from service.generation.tool_calls import ToolCallReader
from service.prompt.detokenizer import Detokenizer
from service.prompt.tool_text import call_text
from tests.conformance.scripted_service import FIRST_BYTE, TOKEN_IDS, ByteTokenizer


def _stream(*stops: str, include_stop: bool = False) -> TextStream:
    return TextStream(Detokenizer(ByteTokenizer(), TOKEN_IDS, strip=False), stops, include_stop=include_stop)


def _ids(text: str) -> list[int]:
    return [FIRST_BYTE + byte for byte in text.encode()]


def _run(stream: TextStream, events: list[TokenEvent]) -> tuple[str, str | None]:
    text = ""
    for event in events:
        delta = stream.push(event)
        text += delta.text
        if delta.finish_reason is not None:
            return text, delta.finish_reason
    return text, None


def _events(ids: list[int], sizes: list[int], *, eos: bool) -> list[TokenEvent]:
    ids = [*ids, TOKEN_IDS.eos] if eos else ids
    events, at = [], 0
    for size in [*sizes, len(ids)]:
        piece = tuple(ids[at : at + size])
        at += len(piece)
        last = at == len(ids)
        reason = ("stop" if eos else "length") if last else None
        events.append(TokenEvent("r", piece, reason, TOKEN_IDS.eos if last and eos else None))  # type: ignore[arg-type]
        if last:
            return events
    return events


TEXTS = st.text(alphabet="ab \n你🙂", max_size=12)


@settings(max_examples=200, deadline=None)
@given(
    TEXTS,
    st.lists(st.text(alphabet="ab \n你", min_size=1, max_size=3), max_size=3),
    st.booleans(),
    st.booleans(),
)
def test_bundling_changes_nothing(text: str, stops: list[str], include: bool, eos: bool) -> None:
    ids = _ids(text)
    one_by_one, bundled = _stream(*stops, include_stop=include), _stream(*stops, include_stop=include)
    single = _run(one_by_one, _events(ids, [1] * len(ids), eos=eos))
    many = _run(bundled, _events(ids, [2, 3, 1, 4], eos=eos))
    assert single == many
    assert one_by_one.num_tokens == bundled.num_tokens
    ends = [(text.index(stop) + len(stop), -len(stop), stop) for stop in stops if stop in text]
    if ends:
        end, _, stop = min(ends)
        expected = text[:end].lstrip() if include else text[: end - len(stop)].strip()
        # A stop string that lies in the whitespace an answer begins with is shown without what precedes it.
        assert single == (expected, "stop")
        assert one_by_one.num_tokens == len(text[:end].encode())
    else:
        assert single[0] == text.strip()
        assert single[1] == ("stop" if eos else "length")
        assert one_by_one.num_tokens == len(ids) + eos


def test_a_stop_token_is_counted_and_hidden_unless_wanted() -> None:
    stop_token = FIRST_BYTE + ord("!")
    event = TokenEvent("r", (*_ids("ok"), stop_token), "stop", stop_token)
    hidden, shown = _stream(), _stream(include_stop=True)
    assert hidden.push(event) == TextDelta("ok", "stop", offsets=(0, 1, 2))
    assert shown.push(event) == TextDelta("ok!", "stop", offsets=(0, 1, 2))
    assert hidden.num_tokens == shown.num_tokens == 3


def test_eos_never_shows() -> None:
    stream = _stream(include_stop=True)
    assert stream.push(TokenEvent("r", (*_ids("ok"), TOKEN_IDS.eos), "stop", TOKEN_IDS.eos)) == TextDelta(
        "ok", "stop", offsets=(0, 1, 2)
    )


def test_an_event_without_visible_text_still_makes_a_delta() -> None:
    stream = _stream()
    first, *rest = "你".encode()
    assert stream.push(TokenEvent("r", (FIRST_BYTE + first,))) == TextDelta("", offsets=(0,))
    assert stream.push(TokenEvent("r", tuple(FIRST_BYTE + byte for byte in rest))) == TextDelta(
        "你", offsets=(0, 0)
    )


def test_an_incomplete_character_at_the_end_is_replaced() -> None:
    stream = _stream()
    assert stream.push(TokenEvent("r", (FIRST_BYTE + 0xE4,), "length")).text == "\ufffd"


def _told(text: str, *stops: str, sizes: tuple[int, ...] = (), eos: bool = True) -> tuple[str, bytes, int]:
    """(text shown, bytes of all logprobs, tokens counted) of a stream asked for log-probabilities."""
    names = LogprobNames(ByteTokenizer(), TOKEN_IDS, skip_special_tokens=True)
    detokenizer = Detokenizer(ByteTokenizer(), TOKEN_IDS, strip=False)
    stream = TextStream(detokenizer, stops, names=names)
    shown, content, num_told = "", b"", 0
    for event in _events(_ids(text), list(sizes), eos=eos):
        told = tuple(TokenLogprobs(-float(token_id)) for token_id in event.token_ids)
        delta = stream.push(replace(event, logprobs=told, index=2))
        assert delta.index == 2
        shown += delta.text
        num_told += len(delta.logprobs)
        content += b"".join(bytes(one.bytes or ()) for one in delta.logprobs)
        if delta.finish_reason is not None:
            break
    assert num_told == stream.num_tokens
    return shown, content, num_told


@settings(max_examples=100, deadline=None)
@given(TEXTS, st.lists(st.text(alphabet="ab \n你", min_size=1, max_size=3), max_size=2), st.booleans())
def test_log_probabilities_have_the_bytes_of_everything_that_came(
    text: str, stops: list[str], eos: bool
) -> None:
    """One for every counted token, whatever is held back, stripped or cut off."""
    single = _told(text, *stops, sizes=(1,) * 60, eos=eos)
    assert single == _told(text, *stops, sizes=(2, 3, 1, 4), eos=eos)
    shown, content, _ = single
    ends = [(text.index(stop) + len(stop), -len(stop), stop) for stop in stops if stop in text]
    came = text[: min(ends)[0]] if ends else text
    assert content.decode() == came
    if not ends:
        assert shown == came.strip()


def test_names_and_bytes_of_tokens() -> None:
    def named(token_id: int, *, skip: bool = True) -> tuple[str, tuple[int, ...] | None]:
        names = LogprobNames(ByteTokenizer(), TOKEN_IDS, skip_special_tokens=skip)
        one = names.describe(token_id, TokenLogprobs(-1.5, ((token_id, -2.5),)))
        (top,) = one.top_logprobs
        assert (one.logprob, top.logprob) == (-1.5, -2.5)
        assert (top.token, top.bytes) == (one.token, one.bytes)
        return one.token, one.bytes

    assert named(FIRST_BYTE + 65) == ("A", (65,))
    assert named(FIRST_BYTE + 0xE4) == ("\ufffd", (0xE4,))  # a third of a character
    assert named(TOKEN_IDS.ref_start) == (f"<{TOKEN_IDS.ref_start}>", None)
    assert named(TOKEN_IDS.ref_start, skip=False)[1] is not None
    assert named(TOKEN_IDS.eos, skip=False)[1] is None


def _raw(text: str, *stops: str, sizes: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    """(text shown, offsets) of a stream that strips nothing."""
    stream = TextStream(Detokenizer(ByteTokenizer(), TOKEN_IDS, strip=False), stops, strip=False)
    shown = ""
    offsets: tuple[int, ...] = ()
    for event in _events(_ids(text), list(sizes), eos=True):
        delta = stream.push(event)
        assert delta.num_tokens == len(delta.offsets)
        shown, offsets = shown + delta.text, offsets + delta.offsets
        if delta.finish_reason is not None:
            break
    assert stream.num_tokens == len(offsets)
    return shown, offsets


@settings(max_examples=100, deadline=None)
@given(TEXTS, st.lists(st.text(alphabet="ab \n你", min_size=1, max_size=3), max_size=2))
def test_offsets_are_characters_of_the_text_in_front_of_each_token(text: str, stops: list[str]) -> None:
    shown, offsets = _raw(text, *stops, sizes=(1,) * 60)
    assert (shown, offsets) == _raw(text, *stops, sizes=(2, 3, 1, 4))
    data = text.encode()
    before = tuple(len(data[:size].decode("utf-8", "ignore")) for size in range(len(data) + 1))
    assert offsets == before[: len(offsets)]
    ends = [(text.index(stop) + len(stop), -len(stop), stop) for stop in stops if stop in text]
    if ends:
        end, size, _ = min(ends)
        assert shown == text[: end + size]
        assert len(offsets) == len(text[:end].encode())
    else:
        assert shown == text
        assert len(offsets) == len(data) + 1


@settings(deadline=None)
@given(st.lists(st.integers(1, 9), max_size=9), st.booleans(), st.sampled_from(["", " ", "\n"]))
def test_a_call_is_no_text_however_it_is_bundled(sizes: list[int], is_forced: bool, space: str) -> None:
    call = call_text("f", '{"x": "你\\n🙂}"}')
    text = call if is_forced else f"{space}{call}{space}"
    reader = ToolCallReader(["f"], None if is_forced else lambda whole: whole == call)
    stream = TextStream(
        Detokenizer(ByteTokenizer(), TOKEN_IDS, strip=False), (), strip=not is_forced, calls=reader
    )
    assert stream.may_call
    deltas = [stream.push(event) for event in _events(_ids(text), sizes, eos=True)]
    calls = [delta.call for delta in deltas if delta.call is not None]
    assert "".join(delta.text for delta in deltas) == ""
    assert "".join(piece.arguments for piece in calls) == '{"x": "你\\n🙂}"}'
    assert (deltas[-1].finish_reason, deltas[-1].is_call) == ("stop", True)
    assert stream.num_tokens == len(_ids(text)) + 1
