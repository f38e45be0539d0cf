"""Requests and images the conformance tests send."""

import base64
import io
import json
from typing import Any

import httpx
from PIL import Image

CHAT = "/v1/chat/completions"


def png(width: int = 32, height: int = 24, colour: str = "red") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(buffer, "PNG")
    return buffer.getvalue()


def data_url(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def image_part(data: bytes | None = None, **image_url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": data_url(data or png()), **image_url}}


def ask(*content: dict[str, Any] | str, **fields: Any) -> dict[str, Any]:
    """A body with one user message."""
    parts = [{"type": "text", "text": part} if isinstance(part, str) else part for part in content]
    return {"messages": [{"role": "user", "content": parts or "Hello"}], **fields}


def error_of(reply: httpx.Response) -> dict[str, Any]:
    """The error, after checking that the reply is a proper envelope."""
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["x-request-id"]
    body: dict[str, Any] = reply.json()
    assert set(body) == {"error"}
    error: dict[str, Any] = body["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str)
    assert error["message"]
    return error


def events_of(stream: bytes) -> list[Any]:
    """The JSON of every event and "[DONE]", after checking the framing byte by byte; comments left out."""
    assert stream.endswith(b"\n\n")
    assert b"\r" not in stream
    events: list[Any] = []
    for block in stream.decode("utf-8", "strict").removesuffix("\n\n").split("\n\n"):
        assert "\n" not in block, "one line per event"
        if block.startswith(":"):
            assert block == ": ping"
            continue
        data = block.removeprefix("data: ")
        assert data != block, "private event shapes break strict clients"
        events.append(data if data == "[DONE]" else json.loads(data))
    return events
