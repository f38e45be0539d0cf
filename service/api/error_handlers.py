"""The one table from error class to HTTP status, type and code, and what turns any error into an envelope."""

import logging
from dataclasses import dataclass
from typing import Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import (
    AuthenticationError,
    ContextLengthError,
    EngineError,
    ImageDecodeError,
    ImageFetchError,
    InvalidValueError,
    NotFoundError,
    NotReadyError,
    OverloadedError,
    RequestError,
    TooLargeError,
    UnsupportedFieldError,
)
from service.protocol.error_response import ErrorDetail, ErrorResponse, ErrorType

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Reply:
    status: int
    type: ErrorType
    code: str | None = None
    headers: tuple[tuple[str, str], ...] = ()


_BAD: Final = "invalid_request_error"
_REPLIES: dict[type[RequestError], _Reply] = {
    InvalidValueError: _Reply(400, _BAD),
    UnsupportedFieldError: _Reply(400, _BAD, "unsupported_parameter"),
    ImageDecodeError: _Reply(400, _BAD, "invalid_image"),
    ImageFetchError: _Reply(400, _BAD, "invalid_image_url"),
    ContextLengthError: _Reply(400, _BAD, "context_length_exceeded"),
    AuthenticationError: _Reply(401, _BAD, "invalid_api_key", (("WWW-Authenticate", "Bearer"),)),
    NotFoundError: _Reply(404, _BAD, "model_not_found"),
    TooLargeError: _Reply(413, _BAD, "request_too_large"),
    OverloadedError: _Reply(429, "rate_limit_error", "rate_limit_exceeded", (("Retry-After", "2"),)),
    NotReadyError: _Reply(503, "server_error", "model_not_ready", (("Retry-After", "5"),)),
}
_OUR_FAULT = _Reply(500, "server_error", None, (("x-should-retry", "false"),))
_OUR_FAULT_MESSAGE = "The server failed while working on this request."


def error_detail(error: RequestError) -> ErrorDetail:
    """The envelope's content; for what is our fault a fixed text, whatever the error says."""
    reply = _reply_of(error)
    if reply is _OUR_FAULT:
        return ErrorDetail(message=_OUR_FAULT_MESSAGE, type=reply.type, param=None, code=reply.code)
    return ErrorDetail(message=error.message, type=reply.type, param=error.param, code=reply.code)


def error_reply(error: RequestError) -> JSONResponse:
    """The whole HTTP reply to an error."""
    reply = _reply_of(error)
    body = ErrorResponse(error=error_detail(error)).model_dump()
    return JSONResponse(body, reply.status, dict(reply.headers))


def log_unexpected(error: BaseException) -> None:
    """Where an unforeseen exception came from, without its text: that may hold a client's data."""
    frames = []
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        frames.append(f"{trace.tb_frame.f_globals.get('__name__')}.{code.co_name}:{trace.tb_lineno}")
        trace = trace.tb_next
    logger.error("unexpected %s at %s", type(error).__name__, " > ".join(frames[-8:]))


def add_error_handlers(app: FastAPI) -> None:
    """Every error raised within a route becomes an envelope."""
    app.add_exception_handler(RequestError, _on_request_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_validation_error)


class ErrorBoundary:
    """ASGI middleware: whatever nobody foresaw becomes the 500 envelope; an open stream is cut off."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watch(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watch)
        except (ClientDisconnect, TimeoutError) as error:
            # The client left, or takes nothing any more (sse-starlette's SendTimeoutError).
            if isinstance(error, TimeoutError) and not started:
                await self._reply(error, scope, receive, send)
        except RequestError as error:
            await error_reply(error)(scope, receive, send)
        except Exception as error:
            if started:
                log_unexpected(error)
            else:
                await self._reply(error, scope, receive, send)

    async def _reply(self, error: Exception, scope: Scope, receive: Receive, send: Send) -> None:
        log_unexpected(error)
        await error_reply(EngineError("unexpected"))(scope, receive, send)


def _reply_of(error: RequestError) -> _Reply:
    return next((_REPLIES[kind] for kind in type(error).__mro__ if kind in _REPLIES), _OUR_FAULT)


async def _on_request_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestError)
    return error_reply(error)


async def _on_http_exception(request: Request, error: Exception) -> JSONResponse:
    """Starlette's own: no such route, no such method."""
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return error_reply(NotFoundError("there is no such route"))
    message = (
        "this route does not take this method" if error.status_code == 405 else "the request is not valid"
    )
    detail = ErrorDetail(message=message, type="invalid_request_error", param=None, code=None)
    headers = dict(error.headers or {})
    return JSONResponse(ErrorResponse(error=detail).model_dump(), error.status_code, headers)


async def _on_validation_error(request: Request, error: Exception) -> JSONResponse:
    return error_reply(InvalidValueError("the request is not valid"))
