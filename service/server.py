"""uvicorn as we run it: signals, draining, log format; knows nothing of models and routes."""

import asyncio
import logging
import signal
import socket
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from service.errors import StartupError
from service.protocol.error_response import ErrorDetail, ErrorResponse

logger = logging.getLogger(__name__)

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_KEEP_ALIVE_S = 75  # longer than a gateway keeps idle connections, so that it never meets one just closed
_REQUEST_HEAD_S = 30.0  # for a request line and its headers to arrive
_NO_HTTP = (
    ErrorResponse(
        error=ErrorDetail(
            message="the request is not valid HTTP", type="invalid_request_error", param=None, code=None
        )
    )
    .model_dump_json()
    .encode()
)
_LAST_WORDS_S = 5  # for replies to requests that were ended at the drain timeout


def configure_logging(level: str) -> None:
    """One format for everything, on stderr."""
    logging.basicConfig(level=level.upper(), format=_LOG_FORMAT, force=True)
    # These write bodies, or a line per request beside our own, at low levels.
    for name in ("sse_starlette", "PIL", "asyncio", "uvicorn.error", "httpcore2"):
        logging.getLogger(name).setLevel(logging.WARNING)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises StartupError where there can be none."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        # create_server repeats the address within the text.
        reason = (error.strerror or type(error).__name__).partition(" (while")[0]
        raise StartupError(
            f"cannot listen on {host} port {port} ({reason}): set MINICPMV_HOST or MINICPMV_PORT"
        ) from None


class _Connection(H11Protocol):
    """Ends a connection on which a request's head does not arrive in time; uvicorn's own waits for ever.

    What is no HTTP gets the API's error envelope instead of uvicorn's plain text.
    """

    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start_head_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop_head_timer()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_answering:
            self._stop_head_timer()
        elif self._head_timer is None:
            self._start_head_timer()

    def send_400_response(self, msg: str) -> None:
        """uvicorn's hook for bytes that are no HTTP; `msg` is its own text."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):  # else an answer has begun: it is cut off
            request_id = f"req_{uuid.uuid4().hex}"
            head = h11.Response(
                status_code=400,
                reason=b"Bad Request",
                headers=[
                    ("content-type", "application/json"),
                    ("content-length", str(len(_NO_HTTP))),
                    ("x-request-id", request_id),
                    ("connection", "close"),
                ],
            )
            for event in (head, h11.Data(_NO_HTTP), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
            logger.info("%s 400: not HTTP", request_id)
        self.transport.close()

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _start_head_timer(self) -> None:
        self._head_timer = self.loop.call_later(_REQUEST_HEAD_S, self._on_head_timeout)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _on_head_timeout(self) -> None:
        self._head_timer = None
        if not self._is_answering:
            self.transport.close()


class Server(uvicorn.Server):
    """Stops on SIGINT and SIGTERM: first no new connections, after the drain timeout no old requests either.

    A second signal ends it at once. Unlike uvicorn's own it does not raise the signal again at the end, so
    that the process can stop its engine and say 0.
    """

    def __init__(
        self,
        app: ASGIApp,
        drain_timeout_s: float,
        on_drain: Callable[[], None],
        on_drain_timeout: Callable[[], None],
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=_Connection,
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                lifespan="off",
                ws="none",
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=round(drain_timeout_s) + _LAST_WORDS_S,
            )
        )
        self._drain_timeout_s = drain_timeout_s
        self._on_drain = on_drain
        self._on_drain_timeout = on_drain_timeout

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """uvicorn's hook around serving."""
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self.begin_shutdown)
        try:
            yield
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)

    def begin_shutdown(self) -> None:
        """What a signal does."""
        if self.should_exit:
            self.force_exit = True
            return
        logger.info("stopping: requests under way have %g s", self._drain_timeout_s)
        self._on_drain()
        self.should_exit = True
        asyncio.get_running_loop().call_later(self._drain_timeout_s, self._on_drain_timeout)
