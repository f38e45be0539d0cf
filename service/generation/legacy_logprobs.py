"""Log-probabilities in the shape of OpenAI's legacy completions: four lists, tokens known by their text."""

from collections.abc import Iterable

from service.generation.text_stream import TextDelta
from service.protocol.chat_response import TokenLogprob, TopLogprob
from service.protocol.completion_response import CompletionLogprobs


def legacy_logprobs(deltas: Iterable[TextDelta]) -> CompletionLogprobs:
    """Of all tokens of one choice's deltas."""
    told = [pair for delta in deltas for pair in zip(delta.logprobs, delta.offsets, strict=True)]
    return CompletionLogprobs(
        tokens=tuple(_name(token) for token, _ in told),
        token_logprobs=tuple(token.logprob for token, _ in told),
        top_logprobs=tuple(_likeliest(token) for token, _ in told),
        text_offset=tuple(offset for _, offset in told),
    )


def _likeliest(token: TokenLogprob) -> dict[str, float]:
    """The likeliest tokens and, wherever it ranks, the chosen one; of two with one text, the likelier."""
    logprobs: dict[str, float] = {}
    for one in (*token.top_logprobs, token):
        logprobs.setdefault(_name(one), one.logprob)
    return logprobs


def _name(token: TopLogprob) -> str:
    r"""The token's text; of a part of a character its bytes, as OpenAI writes them: `bytes:\xe4`."""
    if token.bytes is None:
        return token.token
    data = bytes(token.bytes)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)
