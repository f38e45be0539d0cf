"""Who may call: API keys on every route but the health checks; knows nothing of what is asked."""

import hashlib
import hmac
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.error_handlers import error_reply
from service.api.mount import route_path
from service.errors import AuthenticationError

OPEN_PATHS = frozenset({"/health", "/health/live", "/health/ready"})


class Authentication:
    """ASGI middleware: answers 401 before a byte of the body is read. Without keys everybody may call."""

    def __init__(self, app: ASGIApp, api_keys: Sequence[str]) -> None:
        self._app = app
        self._digests = [_digest(key.encode()) for key in api_keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._digests and scope["type"] == "http" and route_path(scope) not in OPEN_PATHS:
            header = Headers(scope=scope).get("authorization", "")
            if not self._is_known(header):
                message = (
                    "the API key is not valid"
                    if header
                    else "an API key is needed: Authorization: Bearer KEY"
                )
                await error_reply(AuthenticationError(message))(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _is_known(self, header: str) -> bool:
        scheme, _, key = header.partition(" ")
        given = _digest(key.strip().encode("latin-1"))
        # All keys are compared, by digests of one length: time tells nothing of how much was right.
        matches = [hmac.compare_digest(given, digest) for digest in self._digests]
        return scheme.lower() == "bearer" and any(matches)


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
