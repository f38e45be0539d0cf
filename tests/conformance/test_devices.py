"""Engines on several devices, the stateful runner and GET /v1/devices, as a client meets them."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conformance.scripted_service import ScriptedService, api_config, wait_until
from tests.conformance.wire import CHAT, ask, events_of, image_part, png
from tests.live_server import LiveServer

KEY = "0123456789abcdef"
EXACT = {"inference_precision": "f32", "kv_cache_precision": "f32"}
GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 24, "ignore_eos": True}
SEEDED: dict[str, Any] = {"temperature": 1.0, "seed": 4, "max_tokens": 24, "ignore_eos": True}
STORIES = [
    f"Chapter {name}. " + f"The {name} sea was calm, and nobody spoke of it. " * 4 for name in "ABCDEF"
]
BODIES: list[dict[str, Any]] = [
    ask(*content, **options)
    for options in (GREEDY, SEEDED)
    for content in (
        *((story,) for story in STORIES),
        (image_part(png(300, 200, "red")), "What is this?"),
        (image_part(png(700, 500, "blue")), "And this?"),
    )
]


def _post(server: LiveServer, body: dict[str, Any]) -> dict[str, Any]:
    reply = httpx.post(f"{server.base_url}{CHAT}", json=body, timeout=300)
    assert reply.status_code == 200, reply.text
    answer: dict[str, Any] = reply.json()
    return answer


def _text(answer: dict[str, Any]) -> str:
    return str(answer["choices"][0]["message"]["content"])


def _cached(answer: dict[str, Any]) -> int:
    return int(answer["usage"]["prompt_tokens_details"]["cached_tokens"])


def _together(server: LiveServer, bodies: list[dict[str, Any]]) -> list[dict[str, Any]]:
    with ThreadPoolExecutor(len(bodies)) as clients:
        return list(clients.map(lambda body: _post(server, body), bodies))


@pytest.fixture(scope="module")
def one(tiny_artifacts: Path) -> Iterator[LiveServer]:
    """Random weights: no two prompts are answered alike."""
    with LiveServer(model_dir=tiny_artifacts, **EXACT) as server:
        yield server


@pytest.fixture(scope="module")
def two(tiny_artifacts: Path) -> Iterator[LiveServer]:
    with LiveServer(model_dir=tiny_artifacts, device="CPU,CPU", **EXACT) as server:
        yield server


@pytest.fixture(scope="module")
def stateful(tiny_artifacts: Path) -> Iterator[LiveServer]:
    with LiveServer(
        model_dir=tiny_artifacts, runner="stateful", max_num_batched_tokens=64, **EXACT
    ) as server:
        yield server


@pytest.fixture(scope="module")
def expected(one: LiveServer) -> list[str]:
    """What one paged engine answers, one request after another."""
    return [_text(_post(one, body)) for body in BODIES]


def test_two_engines_answer_as_one(two: LiveServer, expected: list[str]) -> None:
    assert [_text(answer) for answer in _together(two, BODIES)] == expected
    assert len(set(expected)) == len(expected)


def test_a_prompt_finds_its_beginning_wherever_it_ran(two: LiveServer) -> None:
    """Asked together, half of them run on the second engine; alone, an idle pair would take the first."""
    bodies = [ask(f"{story} Who spoke?", **GREEDY) for story in STORIES]
    _together(two, bodies)
    for body in bodies * 2:
        usage = _post(two, body)["usage"]
        assert usage["prompt_tokens_details"]["cached_tokens"] == (usage["prompt_tokens"] - 1) // 32 * 32 > 0


def test_leaving_one_stream_leaves_the_other_alone(one: LiveServer, two: LiveServer) -> None:
    bodies = [
        ask(f"Count {word}.", temperature=0, max_tokens=300, ignore_eos=True) for word in ("up", "down")
    ]
    alone = _text(_post(one, bodies[1]))
    with httpx.stream(
        "POST", f"{two.base_url}{CHAT}", json=bodies[0] | {"stream": True}, timeout=300
    ) as left:
        next(left.iter_raw())
        received = bytearray()

        def read() -> None:
            body = bodies[1] | {"stream": True}
            with httpx.stream("POST", f"{two.base_url}{CHAT}", json=body, timeout=300) as reply:
                for piece in reply.iter_raw():
                    received.extend(piece)

        reader = threading.Thread(target=read)
        reader.start()
        wait_until(lambda: b'"content"' in received)
    reader.join()
    events = events_of(bytes(received))
    assert events[-1] == "[DONE]"
    assert "".join(event["choices"][0]["delta"].get("content", "") for event in events[:-1]) == alone


def test_the_stateful_runner_answers_as_the_paged_one(stateful: LiveServer, expected: list[str]) -> None:
    answers = _together(stateful, BODIES)
    assert [_text(answer) for answer in answers] == expected
    assert {_cached(answer) for answer in answers} == {0}
    assert _cached(_post(stateful, BODIES[0])) == 0, "nothing is shared"


def test_every_runner_tells_the_time(two: LiveServer, stateful: LiveServer) -> None:
    for server, choices in ((stateful, {}), (two, {"n": 2}), (two, {"num_beams": 2, "temperature": 0})):
        body = ask(STORIES[0], timings=True, max_tokens=4, **choices)
        timings = _post(server, body)["timings"]
        assert timings["prefill_ms"] > 0
        assert all(value >= 0 for value in timings.values())


def _devices(server: LiveServer) -> list[dict[str, Any]]:
    body = httpx.get(f"{server.base_url}/v1/devices", timeout=30).json()
    assert body["object"] == "list"
    devices: list[dict[str, Any]] = body["data"]
    return devices


def test_devices_are_told(two: LiveServer, stateful: LiveServer) -> None:
    devices = _devices(two)
    roles = ["language_model", "language_model", "image_encoder", "text_embeddings"]
    assert [device["role"] for device in devices] == roles
    assert {(device["id"], device["weights"]) for device in devices} == {("CPU", "int8")}
    assert {device["inference_precision"] for device in devices} == {"f32"}
    assert [device["kv_cache_precision"] for device in devices] == ["f32", "f32", None, None]
    assert [device["runner"] for device in devices] == ["paged", "paged", None, None]
    assert devices[0]["kv_cache_bytes"] == devices[1]["kv_cache_bytes"] > 0
    assert all(device["full_name"] for device in devices)
    assert "/" not in json.dumps(devices), "no paths"
    (engine, *_) = _devices(stateful)
    assert (engine["runner"], engine["max_model_len"]) == ("stateful", 4096)


def test_models_may_sit_on_different_devices(tiny_artifacts: Path, expected: list[str]) -> None:
    """AUTO is a device of its own to OpenVINO; here it ends on the CPU, without paged attention."""
    two = {"device": "CPU,AUTO", "image_device": "AUTO"}
    with LiveServer(model_dir=tiny_artifacts, **two, **EXACT) as server:
        answers = _together(server, BODIES)
        devices = _devices(server)
    assert [_text(answer) for answer in answers] == expected
    assert [(device["id"], device["runner"]) for device in devices] == [
        ("CPU", "paged"),
        ("AUTO", "stateful"),
        ("AUTO", None),
        ("CPU", None),
    ]


def test_devices_need_a_key_and_a_loaded_model() -> None:
    with ScriptedService(api_config(api_keys=[KEY])) as service:
        url, headers = f"{service.base_url}/v1/devices", {"Authorization": f"Bearer {KEY}"}
        assert httpx.get(url).status_code == 401
        assert httpx.get(url, headers=headers).json()["error"]["code"] == "model_not_ready"
        service.open()
        assert httpx.get(url, headers=headers).json() == {"object": "list", "data": []}
