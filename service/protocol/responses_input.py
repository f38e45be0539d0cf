"""What the input of a response consists of: messages and their parts; knows no prompt format."""

from typing import Annotated, Literal

from pydantic import Discriminator, Field, JsonValue, Tag

from service.protocol.chat_message import MAX_PARTS, MAX_TEXT_LENGTH
from service.protocol.field_state import Refused, Tolerated
from service.protocol.json_type import LIST, TEXT, json_type_tag
from service.protocol.wire_model import RequestModel


class InputText(RequestModel):
    type: Literal["input_text"]
    text: str = Field(max_length=MAX_TEXT_LENGTH)
    prompt_cache_breakpoint: Annotated[JsonValue, Tolerated()] = None


class InputImage(RequestModel):
    type: Literal["input_image"]
    image_url: str | None = Field(
        None, description="Required: `data:image/...;base64,...` (PNG, JPEG, WebP, GIF, BMP)."
    )
    detail: Literal["low", "high", "auto"] | None = Field(
        None, description="`low`: one overview; `high` and `auto`: an overview and slices."
    )
    file_id: Annotated[JsonValue, Refused()] = None
    prompt_cache_breakpoint: Annotated[JsonValue, Tolerated()] = None


class OutputText(RequestModel):
    """What the model said before, as a response has it."""

    type: Literal["output_text"]
    text: str = Field(max_length=MAX_TEXT_LENGTH)
    annotations: Annotated[JsonValue, Tolerated()] = None
    logprobs: Annotated[JsonValue, Tolerated()] = None


_PARTS = ("input_text", "input_image", "output_text")


def _part_tag(value: object) -> str | None:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return f"<{kind}>" if kind in _PARTS else None


InputPart = Annotated[
    Annotated[InputText, Tag("<input_text>")]
    | Annotated[InputImage, Tag("<input_image>")]
    | Annotated[OutputText, Tag("<output_text>")],
    Discriminator(
        _part_tag,
        custom_error_type="input_part",
        custom_error_message="Input should be a part of type 'input_text', 'input_image' or 'output_text'",
    ),
]


class InputMessage(RequestModel):
    """One turn. Images may stand in user messages only."""

    type: Literal["message"] | None = None
    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[
        Annotated[str, Field(max_length=MAX_TEXT_LENGTH), Tag(TEXT)]
        | Annotated[list[InputPart], Field(min_length=1, max_length=MAX_PARTS), Tag(LIST)],
        Discriminator(
            json_type_tag,
            custom_error_type="content",
            custom_error_message="Input should be a string or a list of parts",
        ),
    ]
    id: Annotated[JsonValue, Tolerated()] = None
    status: Annotated[JsonValue, Tolerated()] = None
    phase: Annotated[JsonValue, Tolerated()] = None
