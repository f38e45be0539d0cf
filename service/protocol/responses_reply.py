"""What a response looks like on the wire: every key that OpenAI's has, empty where there is nothing."""

from typing import Literal

from pydantic import Field, JsonValue

from service.protocol.timings import Timings
from service.protocol.wire_model import ReplyModel

ResponseStatus = Literal["in_progress", "completed", "incomplete", "failed"]
ItemStatus = Literal["in_progress", "completed", "incomplete"]


def _is_none(value: object) -> bool:
    return value is None


class OutputTopLogprob(ReplyModel):
    token: str
    bytes: tuple[int, ...]
    logprob: float


class OutputLogprob(OutputTopLogprob):
    """`bytes` are empty for a token that has no text."""

    top_logprobs: tuple[OutputTopLogprob, ...]


class OutputTextPart(ReplyModel):
    type: Literal["output_text"] = "output_text"
    text: str
    annotations: tuple[()] = ()
    logprobs: tuple[OutputLogprob, ...] = ()


class OutputMessage(ReplyModel):
    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    status: ItemStatus
    content: tuple[OutputTextPart, ...] = ()
    phase: None = None


class InputTokensDetails(ReplyModel):
    cached_tokens: int
    cache_write_tokens: int = 0  # what is written costs nobody anything
    image_tokens: int
    text_tokens: int


class OutputTokensDetails(ReplyModel):
    reasoning_tokens: int = 0


class ResponseUsage(ReplyModel):
    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails = OutputTokensDetails()
    total_tokens: int


class IncompleteDetails(ReplyModel):
    reason: Literal["max_output_tokens"] = "max_output_tokens"


class ResponseFailure(ReplyModel):
    code: Literal["server_error"] = "server_error"
    message: str


class TextSettings(ReplyModel):
    format: dict[str, JsonValue] = Field(default={"type": "text"}, description="As it was sent.")
    verbosity: Literal["medium"] = "medium"


class ReasoningSettings(ReplyModel):
    effort: None = None
    summary: None = None


class ResponseObject(ReplyModel):
    """Nothing is stored and there are no tools: what speaks of them is always the same."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    status: ResponseStatus
    completed_at: int | None = None
    error: ResponseFailure | None = None
    incomplete_details: IncompleteDetails | None = None
    instructions: str | None
    max_output_tokens: int | None
    model: str
    output: tuple[OutputMessage, ...] = ()
    temperature: float
    top_p: float
    top_logprobs: int
    text: TextSettings = TextSettings()
    reasoning: ReasoningSettings = ReasoningSettings()
    metadata: dict[str, str]
    usage: ResponseUsage | None = None
    system_fingerprint: str
    timings: Timings | None = Field(default=None, exclude_if=_is_none)

    store: Literal[False] = False
    background: Literal[False] = False
    service_tier: Literal["default"] = "default"
    truncation: Literal["disabled"] = "disabled"
    parallel_tool_calls: Literal[False] = False
    tool_choice: Literal["auto"] = "auto"
    tools: tuple[()] = ()
    max_tool_calls: None = None
    previous_response_id: None = None
    conversation: None = None
    prompt: None = None
    prompt_cache_key: None = None
    prompt_cache_options: None = None
    prompt_cache_retention: None = None
    prompt_cache_diagnostics: None = None
    safety_identifier: None = None
    user: None = None
    image: None = None
    input_transformations: None = None
    moderation: None = None
    access_programs: None = None
    tool_usage: None = None
