"""What every reply carries and every request leaves in the log: id and duration; reads no body."""

import logging
import re
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.auth import OPEN_PATHS
from service.api.mount import route_path

logger = logging.getLogger(__name__)

_WELL_FORMED = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_CLIENT_CLOSED = 499  # nginx's status for a client that went away; for the log only


class RequestContext:
    """ASGI middleware, inside Mount alone: x-request-id (a well-formed one is kept), openai-processing-ms."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id, began = _request_id(Headers(scope=scope)), time.monotonic()
        status = _CLIENT_CLOSED

        async def add_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                headers["openai-processing-ms"] = str(_milliseconds_since(began))
            await send(message)

        try:
            await self._app(scope, receive, add_headers)
        finally:
            level = logging.DEBUG if route_path(scope) in OPEN_PATHS else logging.INFO
            route, spent = f"{scope['method']} {scope['path'][:128]!r}", _milliseconds_since(began)
            logger.log(level, "%s %s %d in %d ms", request_id, route, status, spent)


def _request_id(headers: Headers) -> str:
    incoming = headers.get("x-request-id", "")
    return incoming if _WELL_FORMED.fullmatch(incoming) else f"req_{uuid.uuid4().hex}"


def _milliseconds_since(began: float) -> int:
    return round((time.monotonic() - began) * 1000)
