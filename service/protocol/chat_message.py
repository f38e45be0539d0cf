"""Messages of a chat request: roles, text parts, image parts; knows no prompt format."""

from typing import Annotated, Literal

from pydantic import Discriminator, Field, JsonValue, Tag

from service.protocol.field_state import Refused, Tolerated
from service.protocol.json_type import LIST, OBJECT, TEXT, json_type_tag
from service.protocol.tool_call import MAX_CALLS, CallId, ToolCall
from service.protocol.wire_model import RequestModel

MAX_TEXT_LENGTH = 1 << 18  # characters of one text; far more than any context holds
MAX_PARTS = 256


class ImageURL(RequestModel):
    """Where the pixels are, and how closely to look at them."""

    url: str = Field(
        description="`data:image/...;base64,...` (PNG, JPEG, WebP, GIF, BMP), or an `https:` URL of a host "
        "that the operator has listed."
    )
    detail: Literal["low", "high", "auto"] | None = Field(
        None, description="`low`: one overview; `high` and `auto`: an overview and slices."
    )


class TextPart(RequestModel):
    type: Literal["text"]
    text: str = Field(max_length=MAX_TEXT_LENGTH)
    prompt_cache_breakpoint: Annotated[JsonValue, Tolerated()] = None


class ImagePart(RequestModel):
    type: Literal["image_url"]
    image_url: Annotated[
        Annotated[ImageURL, Tag(OBJECT)] | Annotated[str, Tag(TEXT)],
        Discriminator(
            json_type_tag,
            custom_error_type="image_url",
            custom_error_message="Input should be an object with a url, or a string",
        ),
    ]
    prompt_cache_breakpoint: Annotated[JsonValue, Tolerated()] = None


def _part_tag(value: object) -> str | None:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return f"<{kind}>" if kind in ("text", "image_url") else None


ContentPart = Annotated[
    Annotated[TextPart, Tag("<text>")] | Annotated[ImagePart, Tag("<image_url>")],
    Discriminator(
        _part_tag,
        custom_error_type="content_part",
        custom_error_message="Input should be a part of type 'text' or 'image_url'",
    ),
]

Content = Annotated[
    Annotated[str, Field(max_length=MAX_TEXT_LENGTH), Tag(TEXT)]
    | Annotated[list[ContentPart], Field(min_length=1, max_length=MAX_PARTS), Tag(LIST)],
    Discriminator(
        json_type_tag,
        custom_error_type="content",
        custom_error_message="Input should be a string or a list of parts",
    ),
]


class ChatMessage(RequestModel):
    """One turn. Images may stand in user messages only; only one that calls may have no content."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Content | None = None
    name: Annotated[str | None, Tolerated()] = None
    parsed: Annotated[JsonValue, Tolerated()] = None  # OpenAI's client for Python puts its parse there
    refusal: Annotated[JsonValue, Refused(("",))] = None
    annotations: Annotated[JsonValue, Refused(([],))] = None
    audio: Annotated[JsonValue, Refused()] = None
    function_call: Annotated[JsonValue, Refused()] = None
    tool_calls: list[ToolCall] | None = Field(
        None, max_length=MAX_CALLS, description="Of an assistant message."
    )
    tool_call_id: CallId | None = Field(None, description="Of a tool message: the call it answers.")
