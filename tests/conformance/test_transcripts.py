"""Streams byte by byte: transcripts/*.txt hold a request and all that came back, but for id, time and pings.

Several pings in a row are one. `WRITE_TRANSCRIPTS=1 pytest tests/conformance/test_transcripts.py` writes the
replies anew; what changed is for the diff to show.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conformance.scripted_service import ScriptedService, api_config, wait_until
from tests.conformance.wire import CHAT, events_of

TRANSCRIPTS = Path(__file__).parent / "transcripts"
# What the engine does; the request is in the file.
SCRIPTS: dict[str, dict[str, Any]] = {
    "plain": {"answer": "Hi"},
    "usage": {"answer": "Hi"},
    "choices": {"answer": "Hi"},
    "logprobs": {"answer": "Hé"},
    "characters": {"answer": "a 你🙂\n\u2028z"},
    "stop_string": {"answer": "One, two, three"},
    "max_tokens": {"answer": "One, two"},
    "failure": {"answer": "Hi", "fail_after": 1},
    "empty": {"answer": ""},
    "queued": {"answer": "Hi"},
}
_HEADERS = ("content-type", "cache-control", "x-accel-buffering")
_PING = b": ping\n\n"


@pytest.fixture(scope="module")
def pinging() -> Iterator[ScriptedService]:
    with ScriptedService(api_config(ping_interval_s=0.02)) as service:
        service.open()
        yield service


def test_every_transcript_has_a_script() -> None:
    assert {path.stem for path in TRANSCRIPTS.iterdir()} == set(SCRIPTS)


@pytest.mark.parametrize("name", [name for name in SCRIPTS if name != "queued"])
def test_the_reply_has_not_changed(service: ScriptedService, name: str) -> None:
    _set(service, name)
    with _ask(service, name) as reply:
        _compare(name, reply, reply.read())


def test_a_request_that_waits_is_kept_alive(pinging: ScriptedService) -> None:
    """Its image waits for the encoder; the first byte of data comes with the first token."""
    _set(pinging, "queued")
    pinging.encoder.gate.clear()
    with _ask(pinging, "queued") as reply:
        received = bytearray()
        for piece in reply.iter_raw():
            received += piece
            if received.count(_PING) >= 2:
                pinging.encoder.gate.set()
        _compare("queued", reply, bytes(received))
    wait_until(lambda: pinging.generator.num_in_flight == 0)


def _set(service: ScriptedService, name: str) -> None:
    for field, value in SCRIPTS[name].items():
        setattr(service.engine, field, value)


def _request(name: str) -> str:
    """The JSON of the second line; the first says where it goes."""
    line, body, *_ = (TRANSCRIPTS / f"{name}.txt").read_text(encoding="utf-8").split("\n")
    assert line == f"POST {CHAT}"
    return body


def _ask(service: ScriptedService, name: str) -> Any:
    return httpx.stream(
        "POST",
        f"{service.base_url}{CHAT}",
        content=_request(name),
        headers={"content-type": "application/json"},
        timeout=30,
    )


def _compare(name: str, reply: httpx.Response, stream: bytes) -> None:
    events_of(stream)
    head = [f"HTTP/1.1 {reply.status_code}", *(f"{header}: {reply.headers[header]}" for header in _HEADERS)]
    lines = [f"POST {CHAT}", _request(name), "", *head, "", _normalised(stream)]
    path = TRANSCRIPTS / f"{name}.txt"
    if os.environ.get("WRITE_TRANSCRIPTS"):
        path.write_text("\n".join(lines), encoding="utf-8", newline="")
    assert "\n".join(lines).encode() == path.read_bytes()


def _normalised(stream: bytes) -> str:
    text = re.sub(r"(: ping\n\n)+", ": ping\n\n", stream.decode())
    text = re.sub(r'"id":"chatcmpl-[0-9a-f]{32}"', '"id":"chatcmpl-ID"', text)
    return re.sub(r'"created":\d{10}', '"created":TIME', text)
