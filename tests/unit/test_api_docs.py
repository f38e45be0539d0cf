"""docs/api.md tells the state of every request field as the types have it."""

import json
import re

import pytest

from service.protocol.chat_message import ChatMessage, ImagePart, ImageURL, TextPart
from service.protocol.chat_request import ChatCompletionRequest
from service.protocol.completion_request import CompletionRequest
from service.protocol.field_state import Refused, Tolerated
from service.protocol.responses_input import InputImage, InputMessage, InputText, OutputText
from service.protocol.responses_request import Reasoning, ResponsesRequest, ResponseStreamOptions, TextConfig
from service.protocol.sampling_fields import ChoiceFields, SamplingFields, StreamOptions
from service.protocol.structured_output import (
    JsonSchemaFormat,
    ResponseFormat,
    StructuredOutputs,
    TextFormat,
)
from service.protocol.tokenization import DetokenizeRequest, TokenizeChatRequest, TokenizeTextRequest
from service.protocol.tool_call import CalledFunction, ToolCall
from service.protocol.tools import FunctionDefinition, NamedFunction, NamedToolChoice, Tool
from service.protocol.wire_model import RequestModel
from tests.conftest import REPOSITORY

SECTIONS: dict[str, type[RequestModel]] = {
    "Every generation": SamplingFields,
    "Choices": ChoiceFields,
    "Stream options": StreamOptions,
    "Response format": ResponseFormat,
    "Schema of the response": JsonSchemaFormat,
    "Structured outputs": StructuredOutputs,
    "Chat completions": ChatCompletionRequest,
    "Messages": ChatMessage,
    "Text parts": TextPart,
    "Image parts": ImagePart,
    "Image URLs": ImageURL,
    "Tool calls": ToolCall,
    "Called functions": CalledFunction,
    "Tools": Tool,
    "Functions": FunctionDefinition,
    "Tool choices": NamedToolChoice,
    "Named functions": NamedFunction,
    "Completions": CompletionRequest,
    "Responses": ResponsesRequest,
    "Input messages": InputMessage,
    "Input text": InputText,
    "Input images": InputImage,
    "Output text": OutputText,
    "Text settings": TextConfig,
    "Text format": TextFormat,
    "Reasoning": Reasoning,
    "Response stream options": ResponseStreamOptions,
    "Tokens of a text": TokenizeTextRequest,
    "Tokens of messages": TokenizeChatRequest,
    "Text of tokens": DetokenizeRequest,
}
_ROW = re.compile(r"^\| `(\w+)` \| (\w+) \| (.*?) ?\|$", re.MULTILINE)


def _states(model: type[RequestModel]) -> dict[str, tuple[str, str | None]]:
    """Field -> state, and for refused ones the note that names the harmless values; its own fields only."""
    states: dict[str, tuple[str, str | None]] = {}
    inherited = {name for base in model.__bases__ for name in getattr(base, "model_fields", {})}
    for attribute, field in model.model_fields.items():
        if attribute in inherited:
            continue
        name = field.alias or attribute
        states[name] = ("honoured", None)
        for mark in field.metadata:
            if isinstance(mark, Tolerated):
                states[name] = ("tolerated", None)
            elif isinstance(mark, Refused):
                values = ", ".join(json.dumps(value) for value in mark.no_op)
                states[name] = ("refused", f"but {values}" if values else "")
    return states


@pytest.mark.parametrize("section", SECTIONS)
def test_the_table_is_what_the_types_say(section: str) -> None:
    text = (REPOSITORY / "docs" / "api.md").read_text(encoding="utf-8")
    body = text.split(f"\n## {section}\n")[1].split("\n## ")[0]
    told = {name: (state, note if state == "refused" else None) for name, state, note in _ROW.findall(body)}
    assert told == _states(SECTIONS[section])


def test_no_fields_are_in_no_table() -> None:
    """Requests inherit from what has a table of its own."""
    for model in SECTIONS.values():
        bases = {base for base in model.__mro__ if base.__module__.startswith("service.protocol.")}
        assert bases <= {*SECTIONS.values(), RequestModel}
