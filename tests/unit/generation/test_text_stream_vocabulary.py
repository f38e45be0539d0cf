"""Random ids of a real vocabulary, with byte pieces and specials, mean what sentencepiece says they do."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from service.generation.text_stream import TextDelta, TextStream
from service.generation.token_logprobs import LogprobNames
from service.prompt.detokenizer import Detokenizer
from tests.conformance.random_answer import TOKEN_IDS, TOKENIZER, RandomAnswer, answers, stops_for, text_of

_EXAMPLES = settings(max_examples=300, deadline=None)


def _run(answer: RandomAnswer, stops: list[str]) -> tuple[TextStream, list[TextDelta]]:
    stream = TextStream(
        Detokenizer(TOKENIZER, TOKEN_IDS, strip=False),
        tuple(stops),
        names=LogprobNames(TOKENIZER, TOKEN_IDS, skip_special_tokens=True),
    )
    deltas = []
    for event in answer.events():
        deltas.append(stream.push(event))
        if stream.is_finished:
            break
    return stream, deltas


def _joined(deltas: list[TextDelta]) -> str:
    return "".join(delta.text for delta in deltas)


def _until_stop(text: str, stops: list[str]) -> tuple[str, bool]:
    """The text up to the stop string that is complete first, of those the longest."""
    ends = [(text.index(stop) + len(stop), -len(stop)) for stop in stops if stop in text]
    return (text[: sum(min(ends))], True) if ends else (text, False)


@_EXAMPLES
@given(answer=answers(), data=st.data())
def test_streamed_text_is_the_whole_text_whatever_the_events(
    answer: RandomAnswer, data: st.DataObject
) -> None:
    stops = data.draw(stops_for(answer))
    text, is_stopped = _until_stop(text_of(answer.ids), stops)
    stream, deltas = _run(answer, stops)
    assert _joined(deltas) == text.strip()
    assert deltas[-1].finish_reason == ("stop" if is_stopped or answer.by_eos else "length")
    at_once, whole = _run(replace(answer, sizes=()), stops)
    assert (_joined(whole), whole[-1].finish_reason) == (_joined(deltas), deltas[-1].finish_reason)
    assert at_once.num_tokens == stream.num_tokens


@_EXAMPLES
@given(answer=answers())
def test_no_piece_holds_a_part_of_a_character(answer: RandomAnswer) -> None:
    _, deltas = _run(replace(answer, sizes=(1,) * 200), [])
    shown = _joined(deltas)
    for delta in deltas:
        delta.text.encode("utf-8", "strict")  # a lone surrogate would raise
    # Joined before they are decoded, the pieces' bytes would be the same: nothing was cut within a character.
    assert b"".join(delta.text.encode() for delta in deltas).decode("utf-8", "strict") == shown
    assert shown.count("\ufffd") == text_of(answer.ids).count("\ufffd")


@_EXAMPLES
@given(answer=answers(specials=False), data=st.data())
def test_bytes_of_log_probabilities_rebuild_the_text(answer: RandomAnswer, data: st.DataObject) -> None:
    stops = data.draw(stops_for(answer))
    stream, deltas = _run(replace(answer, has_logprobs=True), stops)
    told = [one for delta in deltas for one in delta.logprobs]
    assert len(told) == stream.num_tokens
    content = b"".join(bytes(one.bytes or ()) for one in told)
    # sentencepiece's way with what is no UTF-8: every byte by itself.
    text = content.decode("utf-8", "replace-each-byte")
    assert _until_stop(text, stops)[0].strip() == _joined(deltas)
