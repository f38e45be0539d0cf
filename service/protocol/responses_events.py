"""The events of a response's stream; each names itself in `type` and counts up `sequence_number`."""

from typing import Literal

from service.protocol.responses_reply import OutputLogprob, OutputMessage, OutputTextPart, ResponseObject
from service.protocol.wire_model import ReplyModel


class ResponseEvent(ReplyModel):
    """The response as it is by then."""

    type: Literal[
        "response.created",
        "response.in_progress",
        "response.completed",
        "response.incomplete",
        "response.failed",
    ]
    sequence_number: int
    response: ResponseObject


class OutputItemEvent(ReplyModel):
    type: Literal["response.output_item.added", "response.output_item.done"]
    sequence_number: int
    output_index: Literal[0] = 0
    item: OutputMessage


class ContentPartEvent(ReplyModel):
    type: Literal["response.content_part.added", "response.content_part.done"]
    sequence_number: int
    item_id: str
    output_index: Literal[0] = 0
    content_index: Literal[0] = 0
    part: OutputTextPart


class TextDeltaEvent(ReplyModel):
    type: Literal["response.output_text.delta"] = "response.output_text.delta"
    sequence_number: int
    item_id: str
    output_index: Literal[0] = 0
    content_index: Literal[0] = 0
    delta: str
    logprobs: tuple[OutputLogprob, ...]


class TextDoneEvent(ReplyModel):
    type: Literal["response.output_text.done"] = "response.output_text.done"
    sequence_number: int
    item_id: str
    output_index: Literal[0] = 0
    content_index: Literal[0] = 0
    text: str
    logprobs: tuple[OutputLogprob, ...]


class ErrorEvent(ReplyModel):
    type: Literal["error"] = "error"
    sequence_number: int
    code: str
    message: str
    param: str | None


StreamEvent = ResponseEvent | OutputItemEvent | ContentPartEvent | TextDeltaEvent | TextDoneEvent | ErrorEvent
