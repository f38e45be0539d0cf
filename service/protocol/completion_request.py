"""The body of POST /v1/completions: every field OpenAI's legacy API and vLLM's clients send."""

from typing import Annotated, ClassVar

from pydantic import Discriminator, Field, JsonValue, Tag

from service.protocol.chat_message import MAX_TEXT_LENGTH
from service.protocol.field_state import Refused
from service.protocol.sampling_fields import MAX_TOKENS, ChoiceFields, TokenId

MAX_PROMPTS = 32  # of one request: each is a request of its own to the engine
MAX_PROMPT_TOKENS = 1 << 18  # far more than any context holds
MAX_LOGPROBS = 5  # OpenAI's limit


def _prompt_tag(value: object) -> str | None:
    if isinstance(value, str):
        return "<text>"
    first = value[0] if isinstance(value, list) and value else None
    if isinstance(first, str):
        return "<texts>"
    if isinstance(first, list):
        return "<token_lists>"
    return "<tokens>" if isinstance(first, int) and not isinstance(first, bool) else None


_Text = Annotated[str, Field(max_length=MAX_TEXT_LENGTH)]
_TokenIds = Annotated[list[TokenId], Field(min_length=1, max_length=MAX_PROMPT_TOKENS)]

Prompt = Annotated[
    Annotated[_Text, Tag("<text>")]
    | Annotated[list[_Text], Field(max_length=MAX_PROMPTS), Tag("<texts>")]
    | Annotated[_TokenIds, Tag("<tokens>")]
    | Annotated[list[_TokenIds], Field(max_length=MAX_PROMPTS), Tag("<token_lists>")],
    Discriminator(
        _prompt_tag,
        custom_error_type="prompt",
        custom_error_message="Input should be a string, a list of strings, of token ids or of lists of these",
    ),
]


class CompletionRequest(ChoiceFields):
    """`null` means absent."""

    id_prefix: ClassVar[str] = "cmpl-"
    prompt_field: ClassVar[str] = "prompt"

    prompt: Prompt
    max_tokens: int | None = Field(None, ge=1, le=MAX_TOKENS, description="Absent: 16, or what is left.")
    logprobs: int | None = Field(
        None, ge=0, le=MAX_LOGPROBS, description="How many of the likeliest tokens to tell beside each."
    )
    echo: bool | None = Field(None, description="The text begins with the prompt.")

    suffix: Annotated[JsonValue, Refused(("",))] = None
