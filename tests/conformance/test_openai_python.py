"""What the openai package adds to bare HTTP: stream helper, retries, timeouts, raw and streamed replies."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI, DefaultHttpxClient, OpenAI

from tests.conformance.scripted_service import MODEL, ScriptedService, wait_until
from tests.conformance.wire import data_url, png

ASK: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "x"}]}


@contextmanager
def patient_client(service: ScriptedService, **options: Any) -> Iterator[tuple[OpenAI, list[httpx.Request]]]:
    """The client as it is made without a thought for retries, and every request it sends."""
    sent: list[httpx.Request] = []
    with (
        DefaultHttpxClient(event_hooks={"request": [sent.append]}) as http_client,
        OpenAI(
            base_url=f"{service.base_url}/v1", api_key="unused", http_client=http_client, **options
        ) as client,
    ):
        yield client, sent


def _retry_counts(sent: list[httpx.Request]) -> list[str]:
    return [request.headers["x-stainless-retry-count"] for request in sent]


def test_the_stream_helper_gathers_the_answer(client: OpenAI) -> None:
    unary = client.chat.completions.create(**ASK, n=2, logprobs=True, top_logprobs=1)
    with client.chat.completions.stream(
        **ASK, n=2, logprobs=True, top_logprobs=1, stream_options={"include_usage": True}
    ) as stream:
        events = list(stream)
        gathered = stream.get_final_completion()
    assert {event.type for event in events} == {
        "chunk",
        "content.delta",
        "content.done",
        "logprobs.content.delta",
        "logprobs.content.done",
    }
    assert [event.content for event in events if event.type == "content.done"] == [
        choice.message.content for choice in unary.choices
    ]
    assert gathered.usage == unary.usage
    for ours, theirs in zip(unary.choices, gathered.choices, strict=True):
        assert (ours.index, ours.finish_reason) == (theirs.index, theirs.finish_reason)
        assert (ours.message.role, ours.message.content) == (theirs.message.role, theirs.message.content)
        assert ours.logprobs is not None
        assert theirs.logprobs is not None
        assert ours.logprobs.content == theirs.logprobs.content


async def test_the_async_stream_helper(async_client: AsyncOpenAI) -> None:
    async with async_client.chat.completions.stream(**ASK) as stream:
        deltas = [event.delta async for event in stream if event.type == "content.delta"]
        gathered = await stream.get_final_completion()
    assert "".join(deltas) == gathered.choices[0].message.content == "The answer."
    assert gathered.choices[0].finish_reason == "stop"


def test_a_stream_that_fails_raises_from_the_helper_too(client: OpenAI, service: ScriptedService) -> None:
    service.engine.fail_after = 3
    with client.chat.completions.stream(**ASK) as stream, pytest.raises(openai.APIError) as caught:
        list(stream)
    assert caught.value.type == "server_error"
    assert (caught.value.code, caught.value.param) == (None, None)


async def test_the_async_client_sends_images_and_lists_models(
    async_client: AsyncOpenAI, service: ScriptedService
) -> None:
    assert [model.id async for model in async_client.models.list()] == [MODEL]
    assert (await async_client.models.retrieve(MODEL)).id == MODEL
    answer = await async_client.chat.completions.create(
        model=MODEL,
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is it?"},
                    {"type": "image_url", "image_url": {"url": data_url(png()), "detail": "high"}},
                ],
            }
        ],
    )
    assert answer.choices[0].message.content == "The answer."
    assert len(service.engine.requests[0].image_spans) == 1


def test_every_field_of_an_error(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**ASK, temperature=3)
    error = caught.value
    assert (error.status_code, error.type, error.param, error.code) == (
        400,
        "invalid_request_error",
        "temperature",
        None,
    )
    assert error.request_id == error.response.headers["x-request-id"]
    assert "temperature" in error.message


async def test_the_async_client_raises_before_a_stream(async_client: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        await async_client.chat.completions.create(**ASK | {"model": "gpt-9"}, stream=True)
    assert caught.value.code == "model_not_found"


def test_too_many_requests_are_tried_again_twice(full_service: ScriptedService) -> None:
    with patient_client(full_service) as (client, sent), pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(**ASK)
    assert _retry_counts(sent) == ["0", "1", "2"]
    assert int(caught.value.response.headers["retry-after"]) <= 120, "the client takes no longer one"
    assert len(full_service.engine.requests) == 1, "what was refused is not computed"


def test_a_service_that_loads_is_asked_again() -> None:
    with ScriptedService() as service, patient_client(service) as (client, sent):
        client = client.with_options(max_retries=1)
        with pytest.raises(openai.InternalServerError) as caught:
            client.chat.completions.create(**ASK)
        assert (caught.value.status_code, caught.value.code) == (503, "model_not_ready")
        assert _retry_counts(sent) == ["0", "1"]
        service.open()
        assert client.chat.completions.create(**ASK).choices[0].message.content == "The answer."


@pytest.mark.parametrize("fields", [{"temperature": 3}, {"model": "gpt-9"}, {"max_tokens": 100_000}])
def test_a_request_that_is_wrong_is_not_sent_again(service: ScriptedService, fields: dict[str, Any]) -> None:
    with patient_client(service) as (client, sent), pytest.raises(openai.APIStatusError):
        client.chat.completions.create(**ASK | fields)
    assert _retry_counts(sent) == ["0"]


def test_our_own_failure_is_not_computed_again(service: ScriptedService) -> None:
    service.engine.fail_after = 0
    with patient_client(service) as (client, sent), pytest.raises(openai.InternalServerError):
        client.chat.completions.create(**ASK)
    assert _retry_counts(sent) == ["0"]
    assert len(service.engine.requests) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_times_out_and_retries_leaves_nothing_running(
    endless: ScriptedService, stream: bool
) -> None:
    # A stream speaks all the time; what keeps it silent is the image.
    if stream:
        endless.encoder.gate.clear()
    content: Any = [{"type": "image_url", "image_url": {"url": data_url(png())}}] if stream else "x"
    messages: Any = [{"role": "user", "content": content}]
    with (
        patient_client(endless, timeout=0.3, max_retries=1) as (client, sent),
        pytest.raises((openai.APITimeoutError, httpx.ReadTimeout)),
    ):
        list(
            client.chat.completions.create(model=MODEL, messages=messages, max_tokens=100_000, stream=stream)
        )
    wait_until(lambda: endless.generator.num_in_flight == 0)
    assert endless.engine.closed == [request.request_id for request in endless.engine.requests]
    # A stream's headers had come: the client may not repeat what its caller has begun to read.
    assert _retry_counts(sent) == (["0"] if stream else ["0", "1"])


def test_raw_replies(client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(**ASK)
    assert raw.http_response.status_code == 200
    assert raw.headers["content-type"] == "application/json"
    assert raw.request_id == raw.headers["x-request-id"]
    assert raw.parse().choices[0].message.content == "The answer."
    streamed = client.chat.completions.with_raw_response.create(**ASK, stream=True)
    assert streamed.headers["content-type"].split(";")[0] == "text/event-stream"
    assert streamed.headers["x-request-id"].startswith("req_")
    text = "".join(chunk.choices[0].delta.content or "" for chunk in streamed.parse())
    assert text == "The answer."


def test_replies_read_piece_by_piece(client: OpenAI) -> None:
    with client.chat.completions.with_streaming_response.create(**ASK) as reply:
        assert reply.headers["openai-processing-ms"].isdecimal()
        assert reply.parse().choices[0].message.content == "The answer."
    with client.chat.completions.with_streaming_response.create(**ASK, stream=True) as reply:
        lines = [line for line in reply.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    assert all(line.startswith("data: ") for line in lines)


async def test_the_async_client_reads_raw_replies(async_client: AsyncOpenAI) -> None:
    raw = await async_client.chat.completions.with_raw_response.create(**ASK)
    assert raw.parse().choices[0].message.content == "The answer."
    async with async_client.chat.completions.with_streaming_response.create(**ASK, stream=True) as reply:
        lines = [line async for line in reply.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
