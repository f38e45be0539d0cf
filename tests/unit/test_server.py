"""Connections as the server keeps and ends them, over real sockets."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from service.errors import StartupError
from service.server import Server, listen

_REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
_HEAD_S = 0.05


async def _slow_app(scope: Scope, receive: Receive, send: Send) -> None:
    await asyncio.sleep(4 * _HEAD_S)
    await PlainTextResponse("answer")(scope, receive, send)


@asynccontextmanager
async def _connection(
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    monkeypatch.setattr("service.server._REQUEST_HEAD_S", _HEAD_S)
    server = Server(_slow_app, 1, on_drain=lambda: None, on_drain_timeout=lambda: None)
    with listen("127.0.0.1", 0) as socket:
        serving = asyncio.create_task(server.serve(sockets=[socket]))
        reader, writer = await asyncio.open_connection(*socket.getsockname())
        try:
            yield reader, writer
        finally:
            writer.close()
            server.should_exit = True
            await serving


@pytest.mark.parametrize("sent", [b"", b"GET / HT", _REQUEST[:-2]])
async def test_a_head_that_does_not_arrive_ends_the_connection(
    monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    async with _connection(monkeypatch) as (reader, writer):
        writer.write(sent)
        assert await asyncio.wait_for(reader.read(), 30) == b""


async def test_a_slow_answer_is_waited_for_and_a_second_half_head_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with _connection(monkeypatch) as (reader, writer):
        writer.write(_REQUEST)
        assert await asyncio.wait_for(reader.readuntil(b"answer"), 30)
        writer.write(_REQUEST[:-2])
        assert await asyncio.wait_for(reader.read(), 30) == b""


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01 TLS\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",  # no Host
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 100_000,
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nno size\r\n",
    ],
    ids=["tls", "host", "length", "head", "chunk"],
)
async def test_what_is_no_http_gets_the_envelope(monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    async with _connection(monkeypatch) as (reader, writer):
        writer.write(sent)
        head, body = (await asyncio.wait_for(reader.read(), 30)).split(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    assert lines[0] == b"http/1.1 400 bad request"
    assert b"content-type: application/json" in lines
    assert b"connection: close" in lines
    assert any(line.startswith(b"x-request-id: req_") for line in lines)
    assert json.loads(body)["error"]["type"] == "invalid_request_error"
    assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}


async def test_broken_framing_behind_a_begun_answer_cuts_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    async def begin_and_wait(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass

    monkeypatch.setattr(f"{__name__}._slow_app", begin_and_wait)
    async with _connection(monkeypatch) as (reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert await asyncio.wait_for(reader.readuntil(b"begun"), 30)
        writer.write(b"no size\r\n")
        assert b"HTTP/1.1 400" not in await asyncio.wait_for(reader.read(), 30)


def test_a_taken_port_is_told_once() -> None:
    with listen("127.0.0.1", 0) as socket, pytest.raises(StartupError) as caught:
        listen("127.0.0.1", socket.getsockname()[1])
    assert caught.value.message.count("127.0.0.1") == 1
