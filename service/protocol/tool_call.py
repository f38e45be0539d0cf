"""A call of a function as an assistant message holds it, said before or answered now; knows no tool."""

from typing import Annotated, Literal

from pydantic import Field, JsonValue

from service.protocol.field_state import Tolerated
from service.protocol.wire_model import RequestModel

MAX_CALLS = 128  # of one message
MAX_CALL_ID_LENGTH = 256
MAX_ARGUMENTS_LENGTH = 1 << 18  # characters

FunctionName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
CallId = Annotated[str, Field(min_length=1, max_length=MAX_CALL_ID_LENGTH)]


class CalledFunction(RequestModel):
    name: FunctionName
    arguments: str = Field(max_length=MAX_ARGUMENTS_LENGTH, description="JSON of an object.")
    parsed_arguments: Annotated[JsonValue, Tolerated()] = None  # OpenAI's client puts its parse there


class ToolCall(RequestModel):
    """What the model, or another one, called before."""

    id: CallId
    type: Literal["function"]
    function: CalledFunction
    index: Annotated[JsonValue, Tolerated()] = None  # left by clients that joined a stream
