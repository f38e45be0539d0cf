"""What a chat completion looks like on the wire, whole and as chunks of a stream."""

from typing import Literal

from pydantic import Field

from service.protocol.grounding import GroundedRegion
from service.protocol.timings import Timings
from service.protocol.wire_model import ReplyModel

FinishReason = Literal["stop", "length"]
ChatFinishReason = FinishReason | Literal["tool_calls"]


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


class FunctionCall(ReplyModel):
    """`arguments` are the JSON of an object, valid against the function's parameters."""

    name: str
    arguments: str


class MessageToolCall(ReplyModel):
    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


class AssistantMessage(ReplyModel):
    """`content` is null where there are `tool_calls`, which are on the wire only there.

    `grounding` is on the wire only where the client asked for it.
    """

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: None = None
    tool_calls: tuple[MessageToolCall, ...] | None = Field(default=None, exclude_if=_is_none)
    grounding: tuple[GroundedRegion, ...] | None = Field(default=None, exclude_if=_is_none)


class Choice(ReplyModel):
    index: int = 0
    message: AssistantMessage
    logprobs: ChoiceLogprobs | None = None
    finish_reason: ChatFinishReason


class ChatCompletion(ReplyModel):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    system_fingerprint: str
    choices: tuple[Choice, ...]
    usage: Usage
    timings: Timings | None = Field(default=None, exclude_if=_is_none)


class FunctionCallDelta(ReplyModel):
    """The name with the first, empty, piece of the arguments; then pieces alone."""

    name: str | None = Field(default=None, exclude_if=_is_none)
    arguments: str


class ToolCallDelta(ReplyModel):
    """`id` and `type` come once, with the name."""

    index: Literal[0] = 0
    id: str | None = Field(default=None, exclude_if=_is_none)
    type: Literal["function"] | None = Field(default=None, exclude_if=_is_none)
    function: FunctionCallDelta


class Delta(ReplyModel):
    """Fields that are None are left out of the chunk; `grounding` stands in the last one with content."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    tool_calls: tuple[ToolCallDelta, ...] | None = Field(default=None, exclude_if=_is_none)
    grounding: tuple[GroundedRegion, ...] | None = Field(default=None, exclude_if=_is_none)


class ChunkChoice(ReplyModel):
    index: int = 0
    delta: Delta
    logprobs: ChoiceLogprobs | None = None
    finish_reason: ChatFinishReason | None = None


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
