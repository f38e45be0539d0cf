"""The bodies of POST /tokenize and /detokenize, named as vLLM names them."""

from typing import Annotated

from pydantic import Discriminator, Field, JsonValue, Tag

from service.protocol.chat_message import MAX_TEXT_LENGTH, ChatMessage
from service.protocol.chat_request import MAX_MESSAGES
from service.protocol.field_state import Refused
from service.protocol.sampling_fields import TokenId
from service.protocol.tools import MAX_TOOLS, Tool
from service.protocol.wire_model import ReplyModel, RequestModel

MAX_TOKEN_IDS = 1 << 18


class TokenizeTextRequest(RequestModel):
    prompt: str = Field(max_length=MAX_TEXT_LENGTH)
    model: str | None = Field(None, max_length=256, description="Absent: the one model served.")
    add_special_tokens: bool | None = Field(None, description="Absent: true, the bos token comes first.")
    return_token_strs: bool | None = None


class TokenizeChatRequest(RequestModel):
    """The tokens of the prompt that a chat completion with these messages has."""

    messages: list[ChatMessage] = Field(min_length=1, max_length=MAX_MESSAGES)
    model: str | None = Field(None, max_length=256, description="Absent: the one model served.")
    tools: list[Tool] | None = Field(None, max_length=MAX_TOOLS)
    return_token_strs: bool | None = None

    add_generation_prompt: Annotated[JsonValue, Refused((True,))] = None
    add_special_tokens: Annotated[JsonValue, Refused((False,))] = None
    continue_final_message: Annotated[JsonValue, Refused((False,))] = None
    chat_template: Annotated[JsonValue, Refused()] = None
    chat_template_kwargs: Annotated[JsonValue, Refused(({},))] = None
    media_io_kwargs: Annotated[JsonValue, Refused(({},))] = None
    mm_processor_kwargs: Annotated[JsonValue, Refused(({},))] = None


def _form(value: object) -> str | None:
    if isinstance(value, RequestModel):
        return "<messages>" if isinstance(value, TokenizeChatRequest) else "<prompt>"
    if not isinstance(value, dict):
        return None
    return "<messages>" if "messages" in value else "<prompt>"


TokenizeRequest = Annotated[
    Annotated[TokenizeTextRequest, Tag("<prompt>")] | Annotated[TokenizeChatRequest, Tag("<messages>")],
    Discriminator(
        _form,
        custom_error_type="tokenize",
        custom_error_message="Input should be an object with a prompt or messages",
    ),
]


class TokenizeReply(ReplyModel):
    """`tokens` holds image slots too, as the pad id; `token_strs` is null unless asked for."""

    count: int
    max_model_len: int
    tokens: tuple[int, ...]
    token_strs: tuple[str, ...] | None = None


class DetokenizeRequest(RequestModel):
    tokens: list[TokenId] = Field(max_length=MAX_TOKEN_IDS)
    model: str | None = Field(None, max_length=256, description="Absent: the one model served.")


class DetokenizeReply(ReplyModel):
    prompt: str
