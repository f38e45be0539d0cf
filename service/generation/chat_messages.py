"""From the messages of a request to a conversation and the images it shows; reads no image and no token."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

from service.errors import InvalidValueError
from service.generation.call_history import CallHistory
from service.prompt.conversation import Conversation, ImagePart, Role, TextPart, Turn
from service.protocol import chat_message
from service.protocol.answer_request import DialogueRequest
from service.protocol.chat_message import ChatMessage
from service.protocol.chat_request import ChatCompletionRequest
from service.protocol.responses_input import InputImage, InputMessage, InputText, OutputText
from service.vision.slicing import Detail

_Part = TextPart | ImagePart


@dataclass(frozen=True, slots=True)
class ImageReference:
    """An image as the client names it."""

    url: str
    detail: Detail
    param: str  # the field the URL stands in, e.g. messages[0].content[1].image_url.url


@dataclass(frozen=True, slots=True)
class Dialogue:
    """What is to be answered, and where in the request it stands."""

    conversation: Conversation
    images: tuple[ImageReference, ...]  # those that the conversation's ImageParts index
    field: str  # "messages" or "input"

    @property
    def num_characters(self) -> int:
        parts = [part for turn in self.conversation.turns for part in turn.parts]
        texts = [part.text for part in parts if isinstance(part, TextPart)]
        return sum(map(len, texts)) + len(self.conversation.system or "")


def read_dialogue(request: DialogueRequest, tools: str | None = None) -> Dialogue:
    """What read_messages() says of the request's messages; `instructions` come before all system texts."""
    if isinstance(request, ChatCompletionRequest):
        return read_messages(request.messages, tools=tools)
    messages = request.input
    if isinstance(messages, str):
        messages = [InputMessage(role="user", content=messages)]
    return read_messages(messages, request.prompt_field, instructions=request.instructions)


def read_messages(
    messages: Sequence[ChatMessage | InputMessage],
    field: str = "messages",
    instructions: str | None = None,
    tools: str | None = None,
) -> Dialogue:
    """The conversation, and the images its ImageParts index.

    System and developer messages, wherever they stand, become one system text, joined by newlines; `tools`,
    what there is to call, stands behind them. Results of calls are the user's. Messages of one role in a row
    become one turn. Raises InvalidValueError where the turns cannot be shown to the model: an image outside a
    user message, a result without its call, no user message first, neither that nor a result last.
    """
    images: list[ImageReference] = []
    system: list[str] = [instructions or ""]
    turns: list[Turn] = []
    history = CallHistory()
    for index, message in enumerate(messages):
        param = f"{field}[{index}]"
        parts = _read_content(message, f"{param}.content", images)
        if isinstance(message, ChatMessage):
            parts = history.read(message, parts, param)
        if message.role in ("system", "developer"):
            system += [part.text for part in parts if isinstance(part, TextPart)]
            continue
        role: Role = "assistant" if message.role == "assistant" else "user"
        if not turns and role == "assistant":
            raise InvalidValueError("the conversation must begin with a user message", f"{param}.role")
        _append(turns, role, parts)
    if not turns:
        raise InvalidValueError("at least one user message is needed", field)
    if turns[-1].role == "assistant":
        raise InvalidValueError(
            "the last message must be a user's or a tool's", f"{field}[{len(messages) - 1}].role"
        )
    system.append(tools or "")
    conversation = Conversation("\n".join(text for text in system if text) or None, tuple(turns))
    return Dialogue(conversation, tuple(images), field)


def _append(turns: list[Turn], role: Role, parts: tuple[_Part, ...]) -> None:
    if turns and turns[-1].role == role:
        turns[-1] = Turn(role, (*turns[-1].parts, *parts))
    else:
        turns.append(Turn(role, parts))


def _read_content(
    message: ChatMessage | InputMessage, param: str, images: list[ImageReference]
) -> tuple[_Part, ...]:
    if message.content is None:
        if message.role != "assistant" or not message.tool_calls:
            raise InvalidValueError("only an assistant message that calls may have no content", param)
        return ()
    if isinstance(message.content, str):
        return (TextPart(message.content),)
    parts: list[_Part] = []
    for index, part in enumerate(message.content):
        match part:
            case chat_message.TextPart() | InputText() | OutputText():
                parts.append(TextPart(part.text))
            case chat_message.ImagePart() | InputImage():
                if message.role != "user":
                    raise InvalidValueError("only user messages can hold images", f"{param}[{index}]")
                parts.append(ImagePart(len(images)))
                images.append(_read_image(part, f"{param}[{index}].image_url"))
            case _:
                assert_never(part)
    return tuple(parts)


def _read_image(part: chat_message.ImagePart | InputImage, param: str) -> ImageReference:
    if isinstance(part, InputImage):
        if part.image_url is None:
            raise InvalidValueError("an image needs an image_url", param)
        return ImageReference(part.image_url, part.detail or "auto", param)
    if isinstance(part.image_url, str):
        return ImageReference(part.image_url, "auto", param)
    return ImageReference(part.image_url.url, part.image_url.detail or "auto", f"{param}.url")
