"""Four lists, and what tokens are called in them."""

from service.generation.legacy_logprobs import legacy_logprobs
from service.generation.text_stream import TextDelta
from service.protocol.chat_response import TokenLogprob, TopLogprob
from service.protocol.completion_response import CompletionLogprobs


def _top(text: bytes | None, logprob: float) -> TopLogprob:
    if text is None:
        return TopLogprob(token="</s>", logprob=logprob, bytes=None)
    return TopLogprob(token=text.decode("utf-8", "replace"), logprob=logprob, bytes=tuple(text))


def _token(text: bytes | None, logprob: float, *top: TopLogprob) -> TokenLogprob:
    chosen = _top(text, logprob)
    return TokenLogprob(token=chosen.token, logprob=logprob, bytes=chosen.bytes, top_logprobs=top)


def test_the_tokens_of_all_deltas() -> None:
    deltas = [
        TextDelta("a", logprobs=(_token(b"a", -1.0),), offsets=(0,)),
        TextDelta("", logprobs=(), offsets=()),
        TextDelta("", "stop", logprobs=(_token(b" \xe4", -2.0), _token(None, -3.0)), offsets=(1, 2)),
    ]
    assert legacy_logprobs(deltas) == CompletionLogprobs(
        tokens=("a", "bytes:\\x20\\xe4", "</s>"),
        token_logprobs=(-1.0, -2.0, -3.0),
        top_logprobs=({"a": -1.0}, {"bytes:\\x20\\xe4": -2.0}, {"</s>": -3.0}),
        text_offset=(0, 1, 2),
    )
    assert legacy_logprobs([]) == CompletionLogprobs()


def test_the_chosen_token_is_always_among_the_likeliest() -> None:
    first, second = _top(b"\xe4", -0.1), _top(b"\xe5", -0.2)
    deltas = [
        TextDelta(
            "", logprobs=(_token(b"\xe5", -0.2, first, second), _token(b"x", -9.0, first)), offsets=(0, 0)
        )
    ]
    assert legacy_logprobs(deltas).top_logprobs == (
        {"bytes:\\xe4": -0.1, "bytes:\\xe5": -0.2},
        {"bytes:\\xe4": -0.1, "x": -9.0},
    )


def test_of_two_tokens_with_one_text_the_likelier_is_told() -> None:
    token = _token(b"a", -5.0, _top(b"a", -0.1), _top(b"a", -0.2))
    assert legacy_logprobs([TextDelta("a", logprobs=(token,), offsets=(0,))]).top_logprobs == ({"a": -0.1},)
