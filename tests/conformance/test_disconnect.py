"""A client that leaves ends its generation, streamed or not, at whatever stage."""

import asyncio
import json
import socket

import httpx
import pytest
from openai import APITimeoutError, AsyncOpenAI, OpenAI

from tests.conformance.scripted_service import MODEL, ScriptedService, wait_until
from tests.conformance.wire import CHAT, ask, image_part


def _has_ended(service: ScriptedService) -> bool:
    requests = [request.request_id for request in service.engine.requests]
    return bool(requests) and service.engine.closed == requests and service.generator.num_in_flight == 0


def _head(num_bytes: int) -> bytes:
    lines = (
        f"POST {CHAT} HTTP/1.1",
        "Host: x",
        "Content-Type: application/json",
        f"Content-Length: {num_bytes}",
    )
    return "\r\n".join((*lines, "", "")).encode()


def test_leaving_a_stream(endless: ScriptedService) -> None:
    body = ask(stream=True, max_tokens=100_000)
    with httpx.stream("POST", f"{endless.base_url}{CHAT}", json=body, timeout=30) as reply:
        next(reply.iter_raw())
    wait_until(lambda: _has_ended(endless))


def test_leaving_a_stream_of_the_openai_client(endless: ScriptedService, client: OpenAI) -> None:
    stream = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "x"}], max_tokens=100_000, stream=True
    )
    next(iter(stream))
    stream.close()
    wait_until(lambda: _has_ended(endless))


def test_leaving_a_unary_request(endless: ScriptedService) -> None:
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{endless.base_url}{CHAT}", json=ask(max_tokens=100_000), timeout=0.3)
    wait_until(lambda: _has_ended(endless))


def test_a_client_that_went_away_is_logged_as_such(
    endless: ScriptedService, caplog: pytest.LogCaptureFixture
) -> None:
    def lines() -> list[str]:
        return [line for line in caplog.messages if line.startswith("left-early POST")]

    with caplog.at_level("INFO", "service"):
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(
                f"{endless.base_url}{CHAT}",
                json=ask(max_tokens=100_000),
                headers={"x-request-id": "left-early"},
                timeout=0.3,
            )
        wait_until(lines)
    (line,) = lines()
    assert " 499 in " in line


def test_the_openai_clients_timeout(endless: ScriptedService, client: OpenAI) -> None:
    with pytest.raises(APITimeoutError):
        client.with_options(timeout=0.3).chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "x"}], max_tokens=100_000
        )
    wait_until(lambda: _has_ended(endless))


async def test_a_cancelled_task_of_the_async_client(
    endless: ScriptedService, async_client: AsyncOpenAI
) -> None:
    asking = asyncio.create_task(
        async_client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "x"}], max_tokens=100_000
        )
    )
    while not endless.engine.requests:
        await asyncio.sleep(0.01)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await asyncio.to_thread(wait_until, lambda: _has_ended(endless))


@pytest.mark.parametrize("stream", [False, True])
def test_leaving_while_the_image_encodes_never_reaches_the_engine(
    service: ScriptedService, stream: bool
) -> None:
    service.encoder.gate.clear()
    body = json.dumps(ask(image_part(), "?", stream=stream)).encode()
    with socket.create_connection(("127.0.0.1", service.port)) as raw:
        raw.sendall(_head(len(body)) + body)
        wait_until(lambda: service.generator.num_in_flight == 1)
    wait_until(lambda: service.generator.num_in_flight == 0)
    service.encoder.gate.set()
    assert httpx.post(f"{service.base_url}{CHAT}", json=ask(), timeout=30).status_code == 200
    assert len(service.engine.requests) == 1


def test_a_connection_cut_within_the_body_leaves_nothing_behind(service: ScriptedService) -> None:
    with socket.create_connection(("127.0.0.1", service.port)) as raw:
        raw.sendall(_head(500) + b'{"messages"')
    assert httpx.post(f"{service.base_url}{CHAT}", json=ask(), timeout=30).status_code == 200
    assert service.generator.num_in_flight == 0
