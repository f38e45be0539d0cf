"""Streams: the rules of first and last chunks, framing byte by byte, pings, failures on the way."""

import json

import httpx
import pytest
from openai import APIError, AsyncOpenAI, OpenAI

from tests.conformance.scripted_service import MODEL, ScriptedService, api_config, wait_until
from tests.conformance.wire import CHAT, ask, events_of, image_part, png


def test_the_openai_client_joins_the_stream_to_the_unary_answer(client: OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "x"}],
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    unary = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "x"}])
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == unary.choices[0].message.content
    assert chunks[-1].usage == unary.usage


async def test_the_async_client_streams(async_client: AsyncOpenAI) -> None:
    stream = await async_client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "x"}], stream=True
    )
    assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == "The answer."


def test_the_order_of_chunks(http: httpx.Client, service: ScriptedService) -> None:
    service.engine.answer = "Hi"
    reply = http.post(CHAT, json=ask(stream=True))
    assert reply.status_code == 200
    assert reply.headers["content-type"].split(";")[0] == "text/event-stream"
    assert reply.headers["cache-control"] == "no-cache"
    assert reply.headers["x-accel-buffering"] == "no"
    assert "content-encoding" not in reply.headers
    *chunks, done = events_of(reply.content)
    assert done == "[DONE]"
    assert [chunk["choices"][0]["delta"] for chunk in chunks] == [
        {"role": "assistant", "content": ""},
        {"content": "H"},
        {"content": "i"},
        {},
    ]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, None, "stop"]
    assert all("usage" not in chunk and "error" not in chunk for chunk in chunks)
    assert {(c["id"], c["created"], c["model"], c["object"]) for c in chunks} == {
        (chunks[0]["id"], chunks[0]["created"], MODEL, "chat.completion.chunk")
    }


def test_usage_comes_once_in_a_chunk_of_its_own(http: httpx.Client) -> None:
    reply = http.post(CHAT, json=ask(stream=True, stream_options={"include_usage": True}))
    *chunks, last, done = events_of(reply.content)
    assert done == "[DONE]"
    assert all(chunk["usage"] is None for chunk in chunks)
    assert last["choices"] == []
    assert last["usage"] == http.post(CHAT, json=ask()).json()["usage"]


@pytest.mark.parametrize(
    "answer", ["naïve 你好 🙂", "\u2028 line\r\nbreaks\n\n\x85", '"quoted" \\ data: [DONE]']
)
def test_text_of_any_kind_arrives_whole(http: httpx.Client, service: ScriptedService, answer: str) -> None:
    # One token is one byte here: most characters are split over events.
    service.engine.answer = f"x{answer}x"
    *chunks, _ = events_of(http.post(CHAT, json=ask(stream=True)).content)
    texts = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks]
    assert "".join(texts) == f"x{answer}x"
    assert "\ufffd" not in "".join(texts)


def test_readers_that_split_lines_as_python_does_are_not_misled(
    http: httpx.Client, service: ScriptedService
) -> None:
    service.engine.answer = answer = "a\x85b\u2028c\u2029d\x0be\x0cf\x1cg\rh\ni"
    with http.stream("POST", CHAT, json=ask(stream=True)) as reply:
        lines = [line for line in reply.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == answer


def test_stop_strings_are_trimmed_in_streams_too(http: httpx.Client) -> None:
    events = events_of(http.post(CHAT, json=ask(stream=True, stop=" answer")).content)
    assert "".join(e["choices"][0]["delta"].get("content", "") for e in events[:-1]) == "The"
    assert events[-2]["choices"][0]["finish_reason"] == "stop"


def test_the_answer_is_stripped_alike_in_both_modes(http: httpx.Client, service: ScriptedService) -> None:
    service.engine.answer = " \n two  words \n "
    streamed = events_of(http.post(CHAT, json=ask(stream=True)).content)
    assert "".join(e["choices"][0]["delta"].get("content", "") for e in streamed[:-1]) == "two  words"
    assert http.post(CHAT, json=ask()).json()["choices"][0]["message"]["content"] == "two  words"


def test_a_failure_on_the_way_is_told_and_ends_the_stream(client: OpenAI, service: ScriptedService) -> None:
    service.engine.fail_after = 3
    reply = httpx.post(f"{service.base_url}{CHAT}", json=ask(stream=True), timeout=30)
    assert reply.status_code == 200
    *chunks, error, done = events_of(reply.content)
    assert len(chunks) == 4  # the role and three characters
    assert done == "[DONE]"
    assert error == {
        "error": {
            "message": "The server failed while working on this request.",
            "type": "server_error",
            "param": None,
            "code": None,
        }
    }
    stream = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "x"}], stream=True
    )
    with pytest.raises(APIError, match="The server failed"):
        list(stream)


def test_headers_and_pings_go_out_while_the_image_encodes() -> None:
    with ScriptedService(api_config(ping_interval_s=0.02)) as service:
        service.open()
        service.encoder.gate.clear()
        body = ask(image_part(), "?", stream=True)
        with httpx.stream("POST", f"{service.base_url}{CHAT}", json=body, timeout=30) as reply:
            assert reply.status_code == 200
            received = bytearray()
            for piece in reply.iter_raw():
                received += piece
                if not service.encoder.gate.is_set() and received.count(b": ping\n\n") >= 2:
                    assert b"data:" not in received, "the role waits for the first token"
                    service.encoder.gate.set()
                if received.endswith(b"data: [DONE]\n\n"):
                    break
    assert events_of(bytes(received))[-1] == "[DONE]"


def test_errors_known_before_the_stream_are_http_errors(http: httpx.Client) -> None:
    broken = png(200, 200)[:-40]  # the header is whole
    reply = http.post(CHAT, json=ask(image_part(broken), "?", stream=True))
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "messages[0].content[0].image_url.url"


def test_requests_under_way_are_told_when_the_service_ends() -> None:
    with ScriptedService() as service:
        service.open()
        service.engine.endless, service.engine.pause_s = True, 0.005
        body = ask(stream=True, max_tokens=400)
        with httpx.stream("POST", f"{service.base_url}{CHAT}", json=body, timeout=30) as reply:
            received = bytearray()
            for piece in reply.iter_raw():
                received += piece
                if b'"content":"T"' in received and service.availability.state == "ready":
                    service.availability.begin_drain()
                    service.availability.end_running()
        error, done = events_of(bytes(received))[-2:]
        assert done == "[DONE]"
        assert error["error"]["code"] == "model_not_ready"
        wait_until(lambda: service.generator.num_in_flight == 0)
