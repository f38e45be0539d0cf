"""A host that images are fetched from: a real server on the loopback, which says what it is told."""

import socket
import socketserver
import ssl
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Self

Answer = bytes | Callable[[socket.socket], None]


def reply(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    """A whole HTTP reply, with a Content-Length unless the headers frame the body."""
    framed = any(header.lower().startswith(("content-length:", "transfer-encoding:")) for header in headers)
    length = [] if framed else [f"Content-Length: {len(body)}"]
    return "\r\n".join((f"HTTP/1.1 {status}", *length, *headers, "", "")).encode() + body


class ImageHost:
    """Answers each path with bytes, or whatever a callable does to the connection; others with 404.

    Keeps the head of every request. A context manager.
    """

    def __init__(self, answers: Mapping[str, Answer], ssl_context: ssl.SSLContext | None = None) -> None:
        self.answers = dict(answers)
        self.requests: list[str] = []
        self.num_open = 0  # connections
        self._lock = threading.Lock()
        self._server = _Server(self, ssl_context)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def count(self, change: int) -> None:
        with self._lock:
            self.num_open += change

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def stay_silent(connection: socket.socket) -> None:
    """Until the other side leaves."""
    while connection.recv(4096):
        pass


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True

    def __init__(self, host: ImageHost, ssl_context: ssl.SSLContext | None) -> None:
        self.host = host
        self.ssl_context = ssl_context
        super().__init__(("127.0.0.1", 0), _Connection)


class _Connection(socketserver.BaseRequestHandler):
    server: _Server

    def handle(self) -> None:
        host = self.server.host
        host.count(+1)
        # The other side may leave, or not like our certificate.
        with suppress(OSError), self._connection() as connection:
            self._answer(host, connection)
        host.count(-1)

    def _connection(self) -> socket.socket:
        connection: socket.socket = self.request
        connection.settimeout(120)
        context = self.server.ssl_context
        return connection if context is None else context.wrap_socket(connection, server_side=True)

    def _answer(self, host: ImageHost, connection: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            received = connection.recv(4096)
            if not received:
                return
            head += received
        host.requests.append(head.decode("ascii"))
        answer = host.answers.get(head.split(b" ")[1].decode("ascii"), reply(b"", status="404 Not Found"))
        if callable(answer):
            answer(connection)
        else:
            connection.sendall(answer)
