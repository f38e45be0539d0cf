"""From the calls and results of a conversation to what the model reads of them; knows no tools."""

import json

from service.errors import InvalidValueError
from service.prompt.conversation import ImagePart, TextPart
from service.prompt.tool_text import call_text, result_text
from service.protocol.chat_message import ChatMessage
from service.protocol.tool_call import ToolCall

Parts = tuple[TextPart | ImagePart, ...]


class CallHistory:
    """The calls of the messages read so far. One for a conversation, whose messages come in order."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}  # of the functions called, by the id of the call

    def read(self, message: ChatMessage, content: Parts, param: str) -> Parts:
        """What a message with this content says: its calls behind it, or whose result it is before it.

        Raises InvalidValueError for calls and results in messages of other roles, arguments that are no
        object, and a result without its call.
        """
        if message.tool_calls and message.role != "assistant":
            raise InvalidValueError("only assistant messages can hold calls", f"{param}.tool_calls")
        if message.tool_call_id is not None and message.role != "tool":
            raise InvalidValueError("only tool messages answer a call", f"{param}.tool_call_id")
        if message.role == "tool":
            return (self._result(message, content, f"{param}.tool_call_id"),)
        calls = enumerate(message.tool_calls or ())
        return (*content, *(self._call(call, f"{param}.tool_calls[{index}]") for index, call in calls))

    def _call(self, call: ToolCall, param: str) -> TextPart:
        if not _is_object(call.function.arguments):
            raise InvalidValueError(
                "the arguments of a call are the JSON of an object, as a string",
                f"{param}.function.arguments",
            )
        self._names[call.id] = call.function.name
        return TextPart(call_text(call.function.name, call.function.arguments))

    def _result(self, message: ChatMessage, content: Parts, param: str) -> TextPart:
        name = self._names.get(message.tool_call_id or "")
        if name is None:
            raise InvalidValueError(
                "a tool message needs the id of a call in an assistant message before it", param
            )
        return TextPart(
            result_text(name, "\n".join(part.text for part in content if isinstance(part, TextPart)))
        )


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
