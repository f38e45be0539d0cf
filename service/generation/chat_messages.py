"""From the messages of a request to a conversation and the images it shows; reads no image and no token."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

from service.errors import InvalidValueError
from service.prompt.conversation import Conversation, ImagePart, Role, TextPart, Turn
from service.protocol import chat_message as wire
from service.vision.slicing import Detail

_Part = TextPart | ImagePart


@dataclass(frozen=True, slots=True)
class ImageReference:
    """An image as the client names it."""

    url: str
    detail: Detail
    param: str  # the field the URL stands in, e.g. messages[0].content[1].image_url.url


def read_messages(messages: Sequence[wire.ChatMessage]) -> tuple[Conversation, tuple[ImageReference, ...]]:
    """The conversation, and the images its ImageParts index.

    System and developer messages, wherever they stand, become one system text, joined by newlines. Messages
    of one role in a row become one turn. Raises InvalidValueError where the turns cannot be shown to the
    model: an image outside a user message, no user message first or last.
    """
    images: list[ImageReference] = []
    system: list[str] = []
    turns: list[Turn] = []
    for index, message in enumerate(messages):
        param = f"messages[{index}]"
        parts = _read_content(message, f"{param}.content", images)
        if message.role in ("system", "developer"):
            system += [part.text for part in parts if isinstance(part, TextPart)]
            continue
        role: Role = "user" if message.role == "user" else "assistant"
        if not turns and role == "assistant":
            raise InvalidValueError("the conversation must begin with a user message", f"{param}.role")
        _append(turns, role, parts)
    if not turns:
        raise InvalidValueError("at least one user message is needed", "messages")
    if turns[-1].role == "assistant":
        raise InvalidValueError(
            "the last message must be a user message", f"messages[{len(messages) - 1}].role"
        )
    return Conversation("\n".join(text for text in system if text) or None, tuple(turns)), tuple(images)


def _append(turns: list[Turn], role: Role, parts: tuple[_Part, ...]) -> None:
    if turns and turns[-1].role == role:
        turns[-1] = Turn(role, (*turns[-1].parts, *parts))
    else:
        turns.append(Turn(role, parts))


def _read_content(message: wire.ChatMessage, param: str, images: list[ImageReference]) -> tuple[_Part, ...]:
    if isinstance(message.content, str):
        return (TextPart(message.content),)
    parts: list[_Part] = []
    for index, part in enumerate(message.content):
        match part:
            case wire.TextPart():
                parts.append(TextPart(part.text))
            case wire.ImagePart():
                if message.role != "user":
                    raise InvalidValueError("only user messages can hold images", f"{param}[{index}]")
                parts.append(ImagePart(len(images)))
                images.append(_read_image(part, f"{param}[{index}].image_url"))
            case _:
                assert_never(part)
    return tuple(parts)


def _read_image(part: wire.ImagePart, param: str) -> ImageReference:
    if isinstance(part.image_url, str):
        return ImageReference(part.image_url, "auto", param)
    return ImageReference(part.image_url.url, part.image_url.detail or "auto", f"{param}.url")
