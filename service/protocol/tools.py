"""The tools of a request: which functions there are, and whether one must be called; knows no prompt."""

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from service.protocol.field_state import Tolerated
from service.protocol.json_type import OBJECT, TEXT, json_type_tag
from service.protocol.structured_output import JsonSchema
from service.protocol.tool_call import FunctionName
from service.protocol.wire_model import RequestModel

MAX_TOOLS = 128
MAX_DESCRIPTION_LENGTH = 1 << 14  # characters


class FunctionDefinition(RequestModel):
    """A function that the client runs."""

    name: FunctionName
    description: str | None = Field(None, max_length=MAX_DESCRIPTION_LENGTH)
    parameters: JsonSchema | None = Field(
        None, description="A JSON schema of an object; absent: it is empty."
    )
    strict: Annotated[bool | None, Tolerated()] = None


class Tool(RequestModel):
    type: Literal["function"]
    function: FunctionDefinition


class NamedFunction(RequestModel):
    name: FunctionName


class NamedToolChoice(RequestModel):
    """Call this function."""

    type: Literal["function"]
    function: NamedFunction


ToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag(TEXT)] | Annotated[NamedToolChoice, Tag(OBJECT)],
    Discriminator(
        json_type_tag,
        custom_error_type="tool_choice",
        custom_error_message="Input should be 'none', 'auto', 'required' or an object with a function",
    ),
]
