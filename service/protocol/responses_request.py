"""The body of POST /v1/responses: every field OpenAI's clients send."""

from typing import Annotated, ClassVar, Literal

from pydantic import Discriminator, Field, JsonValue, StringConstraints, Tag

from service.protocol.chat_message import MAX_TEXT_LENGTH
from service.protocol.chat_request import MAX_MESSAGES
from service.protocol.field_state import Refused, Tolerated
from service.protocol.json_type import LIST, TEXT, json_type_tag
from service.protocol.responses_input import InputMessage
from service.protocol.sampling_fields import MAX_TOKENS, MAX_TOP_LOGPROBS, SamplingFields
from service.protocol.structured_output import TextFormat
from service.protocol.wire_model import RequestModel

MAX_METADATA = 16

LOGPROBS = "message.output_text.logprobs"
# All but the first speak of items that no response here has: there is nothing to include.
Includable = Literal[
    "message.output_text.logprobs",
    "message.input_image.image_url",
    "reasoning.encrypted_content",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
]
MetadataKey = Annotated[str, StringConstraints(max_length=64)]
MetadataValue = Annotated[str, StringConstraints(max_length=512)]

Input = Annotated[
    Annotated[str, Field(max_length=MAX_TEXT_LENGTH), Tag(TEXT)]
    | Annotated[list[InputMessage], Field(min_length=1, max_length=MAX_MESSAGES), Tag(LIST)],
    Discriminator(
        json_type_tag,
        custom_error_type="input",
        custom_error_message="Input should be a string or a list of messages",
    ),
]


class TextConfig(RequestModel):
    format: TextFormat | None = None
    verbosity: Annotated[JsonValue, Refused(("medium",))] = None


class Reasoning(RequestModel):
    """There is none, so there is nothing to sum up."""

    effort: Annotated[JsonValue, Refused(("none",))] = None
    mode: Annotated[JsonValue, Refused(("standard",))] = None
    summary: Annotated[JsonValue, Tolerated()] = None
    generate_summary: Annotated[JsonValue, Tolerated()] = None
    context: Annotated[JsonValue, Tolerated()] = None


class ResponseStreamOptions(RequestModel):
    include_obfuscation: Annotated[JsonValue, Tolerated()] = None


class ResponsesRequest(SamplingFields):
    """`null` means absent."""

    id_prefix: ClassVar[str] = "resp_"
    prompt_field: ClassVar[str] = "input"

    input: Input
    instructions: str | None = Field(None, max_length=MAX_TEXT_LENGTH)
    max_output_tokens: int | None = Field(
        None, ge=1, le=MAX_TOKENS, description="Absent: 1024, or what is left of the context."
    )
    include: list[Includable] | None = Field(None, max_length=32)
    top_logprobs: int | None = Field(None, ge=0, le=MAX_TOP_LOGPROBS)
    text: TextConfig | None = None
    reasoning: Reasoning | None = None
    metadata: dict[MetadataKey, MetadataValue] | None = Field(None, max_length=MAX_METADATA)
    stream_options: ResponseStreamOptions | None = None

    store: Annotated[JsonValue, Tolerated()] = None
    service_tier: Annotated[JsonValue, Tolerated()] = None
    safety_identifier: Annotated[JsonValue, Tolerated()] = None
    prompt_cache_key: Annotated[JsonValue, Tolerated()] = None
    prompt_cache_options: Annotated[JsonValue, Tolerated()] = None
    prompt_cache_retention: Annotated[JsonValue, Tolerated()] = None
    parallel_tool_calls: Annotated[JsonValue, Tolerated()] = None
    max_tool_calls: Annotated[JsonValue, Tolerated()] = None

    previous_response_id: Annotated[JsonValue, Refused()] = None
    conversation: Annotated[JsonValue, Refused()] = None
    background: Annotated[JsonValue, Refused((False,))] = None
    background_options: Annotated[JsonValue, Refused()] = None
    tools: Annotated[JsonValue, Refused(([],))] = None
    tool_choice: Annotated[JsonValue, Refused(("none", "auto"))] = None
    truncation: Annotated[JsonValue, Refused(("disabled",))] = None
    prompt: Annotated[JsonValue, Refused()] = None
    context_management: Annotated[JsonValue, Refused(([],))] = None
    image: Annotated[JsonValue, Refused(({"context_compression": "disabled"},))] = None
    moderation: Annotated[JsonValue, Refused()] = None
    access_programs: Annotated[JsonValue, Refused()] = None
