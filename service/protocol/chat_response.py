"""What a chat completion looks like on the wire, whole and as chunks of a stream."""

from typing import Literal

from pydantic import Field

from service.protocol.grounding import GroundedRegion
from service.protocol.timings import Timings
from service.protocol.wire_model import ReplyModel

FinishReason = Literal["stop", "length"]


def _is_none(value: object) -> bool:
    return value is None


class PromptTokensDetails(ReplyModel):
    cached_tokens: int
    image_tokens: int
    text_tokens: int


class CompletionTokensDetails(ReplyModel):
    reasoning_tokens: int = 0
    text_tokens: int


class Usage(ReplyModel):
    """The same numbers whether streamed or not; image slots count as prompt tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails


class TopLogprob(ReplyModel):
    token: str
    logprob: float
    bytes: tuple[int, ...] | None


class TokenLogprob(TopLogprob):
    """`token` shows what is part of a character as U+FFFD; `bytes` are exact, null for what has no text."""

    top_logprobs: tuple[TopLogprob, ...]


class ChoiceLogprobs(ReplyModel):
    content: tuple[TokenLogprob, ...]
    refusal: None = None


class AssistantMessage(ReplyModel):
    """`grounding` is on the wire only where the client asked for it."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None
    grounding: tuple[GroundedRegion, ...] | None = Field(default=None, exclude_if=_is_none)


class Choice(ReplyModel):
    index: int = 0
    message: AssistantMessage
    logprobs: ChoiceLogprobs | None = None
    finish_reason: FinishReason


class ChatCompletion(ReplyModel):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    system_fingerprint: str
    choices: tuple[Choice, ...]
    usage: Usage
    timings: Timings | None = Field(default=None, exclude_if=_is_none)


class Delta(ReplyModel):
    """Fields that are None are left out of the chunk; `grounding` stands in the last one with content."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    grounding: tuple[GroundedRegion, ...] | None = Field(default=None, exclude_if=_is_none)


class ChunkChoice(ReplyModel):
    index: int = 0
    delta: Delta
    logprobs: ChoiceLogprobs | None = None
    finish_reason: FinishReason | None = None


class ChatCompletionChunk(ReplyModel):
    """`usage` is on the wire only where the client asked for it: null until the last chunk.

    So are `timings`, beside the usage and nowhere else.
    """

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    system_fingerprint: str
    choices: tuple[ChunkChoice, ...]
    usage: Usage | None = None
    timings: Timings | None = Field(default=None, exclude_if=_is_none)
