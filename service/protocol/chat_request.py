"""The body of POST /v1/chat/completions: every field OpenAI's and vLLM's clients send, and its limits."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Discriminator, Field, JsonValue, Tag
from pydantic_core import PydanticCustomError

from service.protocol.chat_message import LIST, TEXT, ChatMessage, json_type_tag
from service.protocol.field_state import Refused, Tolerated
from service.protocol.wire_model import RequestModel

MAX_MESSAGES = 512
MAX_STOP_STRINGS = 16
MAX_STOP_LENGTH = 256  # characters of one stop string
MAX_STOP_TOKEN_IDS = 64
MAX_TOKENS = 1 << 20
MAX_TOP_K = 1 << 20
MAX_SALT_LENGTH = 256
MAX_CHOICES = 16  # and beams
MAX_TOP_LOGPROBS = 20
MAX_LENGTH_PENALTY = 10.0
MAX_PRIORITY = (1 << 31) - 1  # Unix seconds fit, for who serves by deadline

StopString = Annotated[str, Field(min_length=1, max_length=MAX_STOP_LENGTH)]
Stop = Annotated[
    Annotated[StopString, Tag(TEXT)]
    | Annotated[list[StopString], Field(max_length=MAX_STOP_STRINGS), Tag(LIST)],
    Discriminator(
        json_type_tag,
        custom_error_type="stop",
        custom_error_message="Input should be a string or a list of strings",
    ),
]


def _no_number(value: object) -> object:
    """Literals are compared, and 1 equals True."""
    if value in (0, 1) and not isinstance(value, bool):
        raise PydanticCustomError("early_stopping", "Input should be true, false or 'never'")
    return value


EarlyStopping = Annotated[Literal[True, False, "never"], BeforeValidator(_no_number)]
TokenId = Annotated[int, Field(ge=0, lt=1 << 31)]


class StreamOptions(RequestModel):
    include_usage: bool | None = None
    include_obfuscation: Annotated[JsonValue, Tolerated()] = None
    continuous_usage_stats: Annotated[JsonValue, Refused((False,))] = None


class ChatCompletionRequest(RequestModel):
    """`null` means absent. Sampling defaults are the published model's own."""

    messages: list[ChatMessage] = Field(min_length=1, max_length=MAX_MESSAGES)
    model: str | None = Field(None, max_length=256, description="Absent: the one model served.")

    max_tokens: int | None = Field(None, ge=1, le=MAX_TOKENS, description="Same as max_completion_tokens.")
    max_completion_tokens: int | None = Field(
        None, ge=1, le=MAX_TOKENS, description="Absent: 1024, or what is left of the context."
    )
    min_tokens: int | None = Field(None, ge=0, le=MAX_TOKENS)
    temperature: float | None = Field(None, ge=0, le=2, description="Absent: 0.7. 0 is greedy.")
    top_p: float | None = Field(None, ge=0, le=1, description="Absent: 0.8.")
    top_k: int | None = Field(None, ge=-1, le=MAX_TOP_K, description="Absent: 100. 0 and -1 turn it off.")
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(
        None, ge=0.01, le=10, description="Absent: 1.05, or 1 with temperature 0. Sees generated tokens only."
    )
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    seed: int | None = Field(None, ge=-(1 << 63), lt=1 << 64)
    stop: Stop | None = None
    stop_token_ids: list[TokenId] | None = Field(None, max_length=MAX_STOP_TOKEN_IDS)
    include_stop_str_in_output: bool | None = None
    skip_special_tokens: bool | None = None
    ignore_eos: bool | None = None
    n: int | None = Field(None, ge=1, le=MAX_CHOICES, description="Choices; with beams, the best so many.")
    best_of: int | None = Field(
        None, ge=1, le=MAX_CHOICES, description="The same as n, or with use_beam_search how many beams."
    )
    num_beams: int | None = Field(None, ge=1, le=MAX_CHOICES, description="More than 1 is a beam search.")
    use_beam_search: bool | None = Field(
        None, description="A beam search with num_beams, best_of or n beams, whichever is sent first."
    )
    length_penalty: float | None = Field(None, ge=-MAX_LENGTH_PENALTY, le=MAX_LENGTH_PENALTY)
    early_stopping: EarlyStopping | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MAX_TOP_LOGPROBS)
    cache_salt: str | None = Field(
        None,
        min_length=1,
        max_length=MAX_SALT_LENGTH,
        description="Only requests with the same salt share cached prefixes.",
    )
    priority: int | None = Field(
        None, ge=-MAX_PRIORITY, le=MAX_PRIORITY, description="Absent: 0. Lower is served earlier."
    )
    grounding: bool | None = Field(
        None, description="Tells, beside the text, the boxes, quads and points the answer marks in the image."
    )
    timings: bool | None = Field(
        None,
        description="Tells where the time went; of a stream, in the usage chunk, which must be asked for.",
    )
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    metadata: Annotated[JsonValue, Tolerated()] = None
    user: Annotated[JsonValue, Tolerated()] = None
    store: Annotated[JsonValue, Tolerated()] = None
    service_tier: Annotated[JsonValue, Tolerated()] = None
    safety_identifier: Annotated[JsonValue, Tolerated()] = None
    prompt_cache_key: Annotated[JsonValue, Tolerated()] = None
    prompt_cache_options: Annotated[JsonValue, Tolerated()] = None
    prompt_cache_retention: Annotated[JsonValue, Tolerated()] = None
    parallel_tool_calls: Annotated[JsonValue, Tolerated()] = None

    logit_bias: Annotated[JsonValue, Refused(({},))] = None
    response_format: Annotated[JsonValue, Refused(({"type": "text"},))] = None
    structured_outputs: Annotated[JsonValue, Refused()] = None
    tools: Annotated[JsonValue, Refused(([],))] = None
    tool_choice: Annotated[JsonValue, Refused(("none", "auto"))] = None
    functions: Annotated[JsonValue, Refused(([],))] = None
    function_call: Annotated[JsonValue, Refused(("none", "auto"))] = None
    modalities: Annotated[JsonValue, Refused((["text"],))] = None
    audio: Annotated[JsonValue, Refused()] = None
    prediction: Annotated[JsonValue, Refused()] = None
    reasoning_effort: Annotated[JsonValue, Refused(("none",))] = None
    verbosity: Annotated[JsonValue, Refused(("medium",))] = None
    web_search_options: Annotated[JsonValue, Refused()] = None
    moderation: Annotated[JsonValue, Refused()] = None
