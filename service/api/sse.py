"""How server-sent events are framed, kept alive and ended; knows not what they say."""

import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from sse_starlette.event import ServerSentEvent
from sse_starlette.sse import EventSourceResponse
from starlette.types import Receive, Scope, Send

from service.api.deps import ApiConfig
from service.api.error_handlers import error_detail, log_unexpected
from service.errors import EngineError, RequestError
from service.protocol.error_response import ErrorDetail, ErrorResponse

# Its debug lines hold the text of every answer.
logging.getLogger("sse_starlette").setLevel(logging.WARNING)

_LINE_END = "\n"
# No line ends in the protocol, but to readers that use str.splitlines(), as httpx's iter_lines() does.
_ESCAPED = str.maketrans({char: f"\\u{ord(char):04x}" for char in "\x85\u2028\u2029"})


class EventStream(EventSourceResponse):
    """Headers at once, a comment as ping in every silence, `close` called at the end, however it comes."""

    def __init__(
        self, events: AsyncGenerator[ServerSentEvent, None], config: ApiConfig, close: Callable[[], None]
    ) -> None:
        super().__init__(
            events,
            headers={"Cache-Control": "no-cache"},
            ping=config.ping_interval_s,
            sep=_LINE_END,
            ping_message_factory=lambda: ServerSentEvent(comment="ping", sep=_LINE_END),
            send_timeout=config.send_timeout_s,
        )
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._close()


def event(data: str, name: str | None = None) -> ServerSentEvent:
    """One line of data, under a name or none."""
    return ServerSentEvent(data.translate(_ESCAPED), event=name, sep=_LINE_END)


def failure_detail(error: Exception) -> ErrorDetail:
    """What a client is told of an error in the middle of a stream; what nobody foresaw is logged."""
    if isinstance(error, RequestError):
        return error_detail(error)
    log_unexpected(error)
    return error_detail(EngineError("unexpected"))


async def chunk_events(chunks: AsyncGenerator[str, None]) -> AsyncGenerator[ServerSentEvent, None]:
    """Nameless events: the chunks, an error if one comes, `[DONE]`."""
    async with aclosing(chunks):
        try:
            async for data in chunks:
                yield event(data)
        except Exception as error:
            yield event(ErrorResponse(error=failure_detail(error)).model_dump_json())
    yield event("[DONE]")
