"""Every row of the error table that exists so far: status, envelope, headers."""

import base64
import json
import socket
from typing import Any

import httpx
import openai
import pytest
from openai import DefaultHttpxClient, OpenAI

from service.errors import EngineError
from tests.conformance.scripted_service import MODEL, ScriptedService, api_config, wait_until
from tests.conformance.wire import CHAT, ask, data_url, error_of, image_part, png

IMAGE_URL = "messages[0].content[0].image_url.url"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": True}, "max_tokens"),
        ({"<text>": 1}, None),
        ({"": 1}, None),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": "9"}, "max_tokens"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens"),
        ({"min_tokens": 9, "max_tokens": 5}, "min_tokens"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"top_k": 1 << 40}, "top_k"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"seed": 1 << 70}, "seed"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"stop": [""]}, "stop[0]"),
        ({"stop": "x" * 257}, "stop"),
        ({"stop": 5}, "stop"),
        ({"stop_token_ids": [10_000]}, "stop_token_ids"),
        ({"stop_token_ids": [True]}, "stop_token_ids[0]"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"stream_options": {"surprise": 1}}, "stream_options.surprise"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "function", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "file"}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "user", "content": "x", "surprise": 1}]}, "messages[0].surprise"),
        (
            {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]},
            "messages[1].role",
        ),
        (
            {"messages": [{"role": "assistant", "content": "y"}, {"role": "user", "content": "x"}]},
            "messages[0].role",
        ),
    ],
)
def test_a_bad_value_is_named(http: httpx.Client, fields: dict[str, Any], param: str) -> None:
    for stream in (False, True):
        reply = http.post(CHAT, json=ask() | {"stream": stream} | fields)
        error = error_of(reply)
        assert (reply.status_code, error["type"], error["param"]) == (400, "invalid_request_error", param)


@pytest.mark.parametrize(
    "field",
    [
        {"n": True},
        {"n": 0},
        {"n": 17},
        {"n": 9},  # more than the engine runs at once
        {"best_of": 2},
        {"best_of": 17},
        {"use_beam_search": True},
        {"use_beam_search": 1},
        {"num_beams": 17},
        {"num_beams": 9},
        {"length_penalty": 0.5},
        {"length_penalty": 11, "num_beams": 2},
        {"early_stopping": True},
        {"early_stopping": "sometimes", "num_beams": 2},
        {"early_stopping": 1, "num_beams": 2},
        {"temperature": 0.5, "num_beams": 2},
        {"n": 3, "num_beams": 2},
        {"use_beam_search": False, "num_beams": 2},
        {"best_of": 3, "num_beams": 2},
        {"best_of": 3, "num_beams": 2, "use_beam_search": True},
        {"logprobs": True, "num_beams": 2},
        {"logprobs": 1},
        {"top_logprobs": 2},
        {"top_logprobs": 21, "logprobs": True},
        {"logit_bias": {"456": 1}},
        {"logit_bias": {"red": 1}},
        {"logit_bias": {str(index): 1 for index in range(301)}},
        {"response_format": "json_object"},
        {"structured_outputs": {}},
        {"structured_outputs": []},
        {"functions": [{"name": "f"}]},
        {"function_call": {"name": "f"}},
        {"modalities": ["text", "audio"]},
        {"audio": {"voice": "x"}},
        {"prediction": {"type": "content", "content": "x"}},
        {"reasoning_effort": "high"},
        {"verbosity": "low"},
        {"web_search_options": {}},
        {"priority": 1.5},
        {"priority": True},
        {"priority": 1 << 31},
        {"cache_salt": ""},
        {"guided_json": {}},
        {"surprise": 1},
    ],
)
def test_what_would_change_the_answer_is_refused_by_name(http: httpx.Client, field: dict[str, Any]) -> None:
    reply = http.post(CHAT, json=ask(**field))
    error = error_of(reply)
    assert (reply.status_code, error["param"]) == (400, next(iter(field)))
    assert next(iter(field)) in error["message"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"messages": [{"role": "user", "content": "x"}], "temperature": NaN}',
        b'{"messages": [{"role": "user", "content": "x"}], "temperature": 1e999}',
        b'{"metadata": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"messages": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
    ],
    ids=[
        "empty",
        "cut",
        "list",
        "null",
        "no-utf8",
        "surrogate",
        "nan",
        "infinity",
        "deep-list",
        "deep-object",
    ],
)
def test_a_body_that_is_no_request(http: httpx.Client, body: bytes) -> None:
    reply = http.post(CHAT, content=body, headers={"content-type": "application/json"})
    assert reply.status_code == 400
    assert error_of(reply)["type"] == "invalid_request_error"


def test_other_content_types_are_refused(http: httpx.Client) -> None:
    for content_type in ("text/plain", "application/x-www-form-urlencoded", ""):
        reply = http.post(CHAT, content=json.dumps(ask()), headers={"content-type": content_type})
        assert (reply.status_code, error_of(reply)["code"]) == (400, None)


@pytest.mark.parametrize(
    ("url", "status"),
    [
        (data_url(b"no image at all"), 400),
        (data_url(png(200, 200)[:100]), 400),
        ("data:image/png;base64,@@@", 400),
        ("https://example.com/cat.png", 400),
        ("file:///etc/passwd", 400),
        ("", 400),
        (data_url(png(1999, 501)), 413),
        (data_url(png(2001, 1)), 413),
        ("data:image/png;base64," + "A" * 140_000, 413),
    ],
    ids=["noise", "truncated", "base64", "http", "file", "empty", "pixels", "side", "bytes"],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_bad_image_is_named(
    http: httpx.Client, service: ScriptedService, url: str, status: int, stream: bool
) -> None:
    part = {"type": "image_url", "image_url": {"url": url}}
    reply = http.post(CHAT, json=ask(part, "?", stream=stream))
    error = error_of(reply)
    assert (reply.status_code, error["param"]) == (status, IMAGE_URL)
    assert (error["code"] == "request_too_large") == (status == 413)
    assert not service.engine.requests
    assert service.generator.num_in_flight == 0
    assert "0x" not in error["message"]
    assert len(url) < 40 or url[30:] not in error["message"]


def test_the_second_of_two_images_is_named(http: httpx.Client) -> None:
    reply = http.post(CHAT, json=ask(image_part(), "?", image_part(b"nothing")))
    assert error_of(reply)["param"] == "messages[0].content[2].image_url.url"
    assert error_of(reply)["code"] == "invalid_image"


def test_too_many_images_or_pixels_together(http: httpx.Client) -> None:
    assert http.post(CHAT, json=ask(*[image_part()] * 4)).status_code == 413
    reply = http.post(CHAT, json=ask(*[image_part(png(900, 900))] * 2))
    assert (reply.status_code, error_of(reply)["code"]) == (413, "request_too_large")


def test_images_belong_to_the_user(http: httpx.Client) -> None:
    messages = [{"role": "system", "content": [image_part()]}, {"role": "user", "content": "x"}]
    reply = http.post(CHAT, json={"messages": messages})
    assert (reply.status_code, error_of(reply)["param"]) == (400, "messages[0].content[0]")


def test_a_prompt_longer_than_the_context(client: OpenAI, service: ScriptedService) -> None:
    long = {"role": "user", "content": "x" * 600}
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=[long])  # type: ignore[list-item]
    assert (caught.value.code, caught.value.type) == ("context_length_exceeded", "invalid_request_error")
    assert "512" in caught.value.message
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "x"}], max_tokens=510
        )
    assert caught.value.code == "context_length_exceeded"
    assert "510" in caught.value.message
    assert not service.engine.requests


def test_a_text_that_can_never_fit_is_not_even_tokenised(http: httpx.Client) -> None:
    reply = http.post(CHAT, json=ask("x" * 200_000))
    assert error_of(reply)["code"] == "context_length_exceeded"
    assert http.post(CHAT, json=ask("x" * 300_000)).status_code == 400


def test_unknown_models_and_routes(client: OpenAI, http: httpx.Client) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt-9", messages=[{"role": "user", "content": "x"}])
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("no/such")
    for path in ("/", "/v1", "/v1/embeddings", "/v1/chat/completions/"):
        reply = http.get(path)
        assert (reply.status_code, error_of(reply)["code"]) == (404, "model_not_found")


def test_a_field_of_another_route_is_not_said_to_be_unknown_everywhere(http: httpx.Client) -> None:
    reply = http.post("/v1/responses", json={"input": "a", "response_format": {"type": "json_object"}})
    error = error_of(reply)
    assert (reply.status_code, error["param"]) == (400, "response_format")
    assert error["message"] == "response_format is not a field that this route knows"


def test_other_methods(http: httpx.Client) -> None:
    reply = http.get(CHAT)
    assert (reply.status_code, reply.headers["allow"]) == (405, "POST")
    assert error_of(reply)["type"] == "invalid_request_error"
    assert http.request("DELETE", "/v1/models").status_code == 405


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_the_limit(chunked: bool) -> None:
    with ScriptedService(api_config(max_body_bytes=10_000)) as service:
        service.open()
        content: Any = (b" " * 1000 for _ in range(50)) if chunked else b" " * 50_000
        reply = httpx.post(
            f"{service.base_url}{CHAT}",
            content=content,
            headers={"content-type": "application/json"},
            timeout=30,
        )
        assert (reply.status_code, error_of(reply)["code"]) == (413, "request_too_large")
        assert httpx.post(f"{service.base_url}{CHAT}", json=ask(), timeout=30).status_code == 200


def test_a_body_that_never_ends_is_given_up() -> None:
    with ScriptedService(api_config(body_timeout_s=0.1)) as service:
        service.open()
        head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99"
        port = int(service.base_url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=30) as raw:
            raw.sendall(f"{head}\r\n\r\n{{".encode())
            assert raw.recv(65536).startswith(b"HTTP/1.1 400 ")


def test_overload_and_the_clients_retry() -> None:
    with ScriptedService(max_in_flight=1) as service:
        service.open()
        service.engine.endless, service.engine.pause_s = True, 0.005
        url = f"{service.base_url}{CHAT}"
        with httpx.stream("POST", url, json=ask(stream=True, max_tokens=400), timeout=30) as running:
            pieces = running.iter_raw()  # must live on: its end closes the connection
            next(pieces)
            reply = httpx.post(url, json=ask(), timeout=30)
            assert (reply.status_code, error_of(reply)["code"]) == (429, "rate_limit_exceeded")
            assert error_of(reply)["type"] == "rate_limit_error"
            assert 1 <= int(reply.headers["retry-after"]) <= 10
            impatient = OpenAI(base_url=f"{service.base_url}/v1", api_key="x", max_retries=0)
            with impatient, pytest.raises(openai.RateLimitError):
                impatient.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "x"}])
        wait_until(lambda: service.generator.num_in_flight == 0)
        assert httpx.post(url, json=ask(max_tokens=2), timeout=30).status_code == 200


def test_the_openai_client_retries_a_429_and_gets_its_answer() -> None:
    with ScriptedService(max_in_flight=1) as service:
        service.open()
        service.engine.endless, service.engine.pause_s = True, 0.005
        statuses: list[int] = []

        def note(reply: Any) -> None:
            statuses.append(reply.status_code)
            service.engine.endless = False  # the answer under way ends: there is room again

        with (
            httpx.stream(
                "POST", f"{service.base_url}{CHAT}", json=ask(stream=True, max_tokens=400), timeout=30
            ) as running,
            DefaultHttpxClient(event_hooks={"response": [note]}) as http_client,
            OpenAI(base_url=f"{service.base_url}/v1", api_key="x", http_client=http_client) as patient,
        ):
            pieces = running.iter_raw()  # must live on: its end closes the connection
            next(pieces)
            answer = patient.chat.completions.create(
                model=MODEL, messages=[{"role": "user", "content": "x"}], max_tokens=3
            )
        assert answer.choices[0].message.content == "The"
        assert statuses[0] == 429
        assert statuses[-1] == 200


def test_our_own_failures_say_nothing_and_ask_for_no_retry(
    http: httpx.Client,
    service: ScriptedService,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    service.engine.fail_after = 0
    replies = [http.post(CHAT, json=ask())]

    def explode(*_: object, **__: object) -> None:
        raise RuntimeError("secret /etc/passwd 0xdeadbeef")

    monkeypatch.setattr(service.generator, "_new_text", explode)
    replies.append(http.post(CHAT, json=ask()))
    for reply in replies:
        error = error_of(reply)
        assert (reply.status_code, error["type"], error["code"]) == (500, "server_error", None)
        assert error["message"] == "The server failed while working on this request."
        assert reply.headers["x-should-retry"] == "false"
    assert "RuntimeError" in caplog.text
    assert "secret" not in caplog.text


def test_an_encoder_failure_is_ours(
    http: httpx.Client, service: ScriptedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise EngineError("device lost")

    monkeypatch.setattr(service.encoder, "encode_batch", fail)
    reply = http.post(CHAT, json=ask(image_part(), "?"))
    assert reply.status_code == 500
    assert "device" not in reply.text
    assert base64.b64encode(png()).decode()[:20] not in reply.text


def test_loading_draining_and_failing() -> None:
    with ScriptedService() as service, httpx.Client(base_url=service.base_url, timeout=30) as http:
        for change in (None, service.open, service.availability.begin_drain):
            if change is not None:
                change()
            ready = service.availability.state == "ready"
            assert http.get("/health/live").status_code == 200
            assert http.get("/v1/models").status_code == 200
            for reply in (http.get("/health/ready"), http.get("/health"), http.post(CHAT, json=ask())):
                assert reply.status_code == (200 if ready else 503)
                if not ready:
                    error = error_of(reply)
                    assert (error["type"], error["code"]) == ("server_error", "model_not_ready")
                    assert 1 <= int(reply.headers["retry-after"]) <= 120


def test_a_dead_engine_is_not_ready(http: httpx.Client, service: ScriptedService) -> None:
    assert http.get("/health/ready").status_code == 200
    service.engine.is_healthy = False
    assert http.get("/health/ready").status_code == 503
    assert http.post(CHAT, json=ask()).status_code == 503
