"""The body of POST /v1/chat/completions: every field OpenAI's and vLLM's clients send."""

from typing import Annotated, ClassVar

from pydantic import Field, JsonValue

from service.protocol.chat_message import ChatMessage
from service.protocol.field_state import Refused, Tolerated
from service.protocol.sampling_fields import MAX_TOKENS, MAX_TOP_LOGPROBS, ChoiceFields
from service.protocol.tools import MAX_TOOLS, Tool, ToolChoice

MAX_MESSAGES = 512


class ChatCompletionRequest(ChoiceFields):
    """`null` means absent."""

    id_prefix: ClassVar[str] = "chatcmpl-"
    prompt_field: ClassVar[str] = "messages"

    messages: list[ChatMessage] = Field(min_length=1, max_length=MAX_MESSAGES)
    max_tokens: int | None = Field(None, ge=1, le=MAX_TOKENS, description="Same as max_completion_tokens.")
    max_completion_tokens: int | None = Field(
        None, ge=1, le=MAX_TOKENS, description="Absent: 1024, or what is left of the context."
    )
    tools: list[Tool] | None = Field(None, max_length=MAX_TOOLS, description="Functions the client runs.")
    tool_choice: ToolChoice | None = Field(
        None, description="Absent: auto. required, or a function: the answer is a call."
    )
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MAX_TOP_LOGPROBS)
    grounding: bool | None = Field(
        None, description="Tells, beside the text, the boxes, quads and points the answer marks in the image."
    )

    metadata: Annotated[JsonValue, Tolerated()] = None
    store: Annotated[JsonValue, Tolerated()] = None
    service_tier: Annotated[JsonValue, Tolerated()] = None
    safety_identifier: Annotated[JsonValue, Tolerated()] = None
    prompt_cache_key: Annotated[JsonValue, Tolerated()] = None
    prompt_cache_options: Annotated[JsonValue, Tolerated()] = None
    prompt_cache_retention: Annotated[JsonValue, Tolerated()] = None
    parallel_tool_calls: Annotated[JsonValue, Tolerated()] = None

    functions: Annotated[JsonValue, Refused(([],))] = None
    function_call: Annotated[JsonValue, Refused(("none", "auto"))] = None
    modalities: Annotated[JsonValue, Refused((["text"],))] = None
    audio: Annotated[JsonValue, Refused()] = None
    prediction: Annotated[JsonValue, Refused()] = None
    reasoning_effort: Annotated[JsonValue, Refused(("none",))] = None
    verbosity: Annotated[JsonValue, Refused(("medium",))] = None
    web_search_options: Annotated[JsonValue, Refused()] = None
    moderation: Annotated[JsonValue, Refused()] = None
