"""What requests of every kind may say of their answer, and its limits; knows no prompt."""

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Discriminator, Field, JsonValue, Tag
from pydantic_core import PydanticCustomError

from service.protocol.field_state import Tolerated
from service.protocol.json_type import LIST, TEXT, json_type_tag
from service.protocol.structured_output import ResponseFormat, StructuredOutputs
from service.protocol.wire_model import RequestModel

MAX_STOP_STRINGS = 16
MAX_STOP_LENGTH = 256  # characters of one stop string
MAX_STOP_TOKEN_IDS = 64
MAX_TOKENS = 1 << 20
MAX_TOP_K = 1 << 20
MAX_SALT_LENGTH = 256
MAX_PRIORITY = (1 << 31) - 1  # Unix seconds fit, for who serves by deadline
MAX_CHOICES = 16  # and beams
MAX_TOP_LOGPROBS = 20
MAX_LENGTH_PENALTY = 10.0
MAX_LOGIT_BIASES = 300
MAX_LOGIT_BIAS = 100.0

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
LogitBias = Annotated[float, Field(ge=-MAX_LOGIT_BIAS, le=MAX_LOGIT_BIAS)]


class StreamOptions(RequestModel):
    include_usage: bool | None = None
    include_obfuscation: Annotated[JsonValue, Tolerated()] = None
    continuous_usage_stats: bool | None = Field(
        default=None, description="Every chunk has the usage so far; needs include_usage."
    )


class SamplingFields(RequestModel):
    """Fields of all: chat completions, completions, responses. Defaults are the published model's own."""

    id_prefix: ClassVar[str]  # of the reply's id
    prompt_field: ClassVar[str]  # where the prompt stands

    model: str | None = Field(None, max_length=256, description="Absent: the one model served.")
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
    logit_bias: dict[str, LogitBias] | None = Field(
        None, max_length=MAX_LOGIT_BIASES, description="What is added to the logits of tokens, by their ids."
    )
    structured_outputs: StructuredOutputs | None = None
    cache_salt: str | None = Field(
        None,
        min_length=1,
        max_length=MAX_SALT_LENGTH,
        description="Only requests with the same salt share cached prefixes.",
    )
    priority: int | None = Field(
        None, ge=-MAX_PRIORITY, le=MAX_PRIORITY, description="Absent: 0. Lower is served earlier."
    )
    timings: bool | None = Field(
        None,
        description="Tells where the time went; of a stream, beside its usage.",
    )
    stream: bool | None = None

    user: Annotated[JsonValue, Tolerated()] = None


class ChoiceFields(SamplingFields):
    """Fields of the two that answer with choices: chat completions and completions."""

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
    response_format: ResponseFormat | None = None
    stream_options: StreamOptions | None = None
