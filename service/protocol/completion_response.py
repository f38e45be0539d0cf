"""What a completion looks like on the wire; the chunks of a stream have the same shape."""

from typing import Literal

from pydantic import Field

from service.protocol.chat_response import FinishReason, Usage
from service.protocol.timings import Timings
from service.protocol.wire_model import ReplyModel


def _is_none(value: object) -> bool:
    return value is None


class CompletionLogprobs(ReplyModel):
    """An entry for each token in all four; `text_offset` counts characters of the choice's text."""

    tokens: tuple[str, ...] = ()
    token_logprobs: tuple[float, ...] = ()
    top_logprobs: tuple[dict[str, float], ...] = ()
    text_offset: tuple[int, ...] = ()


class CompletionChoice(ReplyModel):
    """`finish_reason` is null in all chunks but a choice's last."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None = None
    finish_reason: FinishReason | None = None


class Completion(ReplyModel):
    """`usage` is on the wire of a stream only where the client asked for it; `timings` wherever it did."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    system_fingerprint: str
    choices: tuple[CompletionChoice, ...]
    usage: Usage | None = None
    timings: Timings | None = Field(default=None, exclude_if=_is_none)
