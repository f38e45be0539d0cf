"""The body of every error reply and of an error within a stream."""

from typing import Literal

from service.protocol.wire_model import ReplyModel

ErrorType = Literal["invalid_request_error", "rate_limit_error", "server_error"]


class ErrorDetail(ReplyModel):
    message: str
    type: ErrorType
    param: str | None
    code: str | None


class ErrorResponse(ReplyModel):
    error: ErrorDetail
