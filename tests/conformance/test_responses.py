"""/v1/responses: the object, its typed events byte by byte, what is honoured, tolerated and refused."""

import json
import re
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.responses import Response as SdkResponse
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from tests.conformance.scripted_service import MODEL, ScriptedService, api_config, wait_until
from tests.conformance.wire import CHAT, ask, data_url, error_of, image_part, png

PATH = "/v1/responses"
_EVENT = TypeAdapter[Any](ResponseStreamEvent)


def _message(*parts: dict[str, Any] | str, role: str = "user") -> dict[str, Any]:
    kind = "output_text" if role == "assistant" else "input_text"
    content = [{"type": kind, "text": part} if isinstance(part, str) else part for part in parts]
    return {"role": role, "content": content}


def _image(data: bytes | None = None, **more: Any) -> dict[str, Any]:
    return {"type": "input_image", "image_url": data_url(data or png()), **more}


def _typed_events(stream: bytes) -> list[dict[str, Any]]:
    """Every event, after checking framing, numbers and that OpenAI's types take it; pings left out."""
    events: list[dict[str, Any]] = []
    for block in stream.decode().removesuffix("\n\n").split("\n\n"):
        if block == ": ping":
            continue
        name, data = block.split("\n")
        events.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {events[-1]['type']}"
        _EVENT.validate_python(events[-1])
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return events


def test_a_response(client: OpenAI, service: ScriptedService) -> None:
    response = client.responses.create(model=MODEL, input="x", metadata={"a": "b"}, store=False)
    assert response.output_text == "The answer."
    assert (response.object, response.status, response.model) == ("response", "completed", MODEL)
    assert response.id.startswith("resp_")
    (item,) = response.output
    assert item.type == "message"
    assert item.id == response.id.replace("resp_", "msg_")
    assert (item.role, item.status) == ("assistant", "completed")
    assert (response.error, response.incomplete_details) == (None, None)
    assert response.metadata == {"a": "b"}
    assert response.usage is not None
    chat = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "x"}]).usage
    assert chat is not None
    assert response.usage.input_tokens == chat.prompt_tokens
    assert response.usage.output_tokens == chat.completion_tokens == 12
    assert response.usage.total_tokens == chat.total_tokens
    assert response.usage.input_tokens_details.cached_tokens == 0
    assert response.usage.output_tokens_details.reasoning_tokens == 0
    first, second = service.engine.requests
    assert first.sampling == second.sampling


def test_the_reply_has_every_key_that_openais_has(http: httpx.Client) -> None:
    body = http.post(PATH, json={"input": "x"}).json()
    assert set(SdkResponse.model_fields) <= set(body)
    SdkResponse.model_validate(body)
    assert body["store"] is False
    assert body["metadata"] == {}
    assert body["text"]["format"] == {"type": "text"}
    assert (body["temperature"], body["top_p"], body["top_logprobs"]) == (0.7, 0.8, 0)
    assert "timings" not in body


def test_what_was_asked_for_is_told(http: httpx.Client) -> None:
    fields = {"temperature": 0.0, "top_p": 0.0, "max_output_tokens": 50, "instructions": "Be short."}
    body = http.post(PATH, json={"input": "x"} | fields).json()
    assert {name: body[name] for name in fields} == fields


@pytest.mark.parametrize(
    ("response", "chat"),
    [
        ({"input": "Hi"}, ask("Hi")),
        ({"input": [{"role": "user", "content": "Hi"}]}, ask("Hi")),
        ({"input": [{"type": "message", **_message("Hi")}]}, ask("Hi")),
        (
            {"input": "Hi", "instructions": "Be short."},
            {"messages": [{"role": "system", "content": "Be short."}, *ask("Hi")["messages"]]},
        ),
        (
            {"input": [_message("And kind.", role="developer"), _message("Hi")], "instructions": "Be short."},
            {"messages": [{"role": "system", "content": "Be short.\nAnd kind."}, *ask("Hi")["messages"]]},
        ),
        (
            {"input": [_message("a"), _message("b", role="assistant"), _message("c")]},
            {
                "messages": [
                    {"role": "user", "content": "a"},
                    {"role": "assistant", "content": "b"},
                    {"role": "user", "content": "c"},
                ]
            },
        ),
        ({"input": [_message(_image(), "?")]}, ask(image_part(), "?")),
        (
            {"input": [_message(_image(png(900, 450), detail="low"), "?", _image(detail="auto"))]},
            ask(image_part(png(900, 450), detail="low"), "?", image_part()),
        ),
    ],
)
def test_the_prompt_is_that_of_a_chat(
    http: httpx.Client, service: ScriptedService, response: dict[str, Any], chat: dict[str, Any]
) -> None:
    assert http.post(PATH, json=response).status_code == 200
    assert http.post(CHAT, json=chat).status_code == 200
    first, second = service.engine.requests
    assert first.token_ids.tolist() == second.token_ids.tolist()
    spans = [[(span.start, span.digest) for span in request.image_spans] for request in (first, second)]
    assert spans[0] == spans[1]


def test_output_can_be_sent_back_as_history(client: OpenAI, service: ScriptedService) -> None:
    first = client.responses.create(model=MODEL, input="a", include=["message.output_text.logprobs"])
    history: Any = [{"role": "user", "content": "a"}, *first.output, {"role": "user", "content": "b"}]
    client.responses.create(model=MODEL, input=history)
    dumped: Any = [history[0], *[item.model_dump() for item in first.output], history[2]]
    client.responses.create(model=MODEL, input=dumped)
    client.chat.completions.create(
        model=MODEL,
        messages=[
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "The answer."},
            {"role": "user", "content": "b"},
        ],
    )
    prompts = [request.token_ids.tolist() for request in service.engine.requests[1:]]
    assert prompts[0] == prompts[1] == prompts[2]


def test_an_answer_that_was_cut_is_incomplete(client: OpenAI) -> None:
    response = client.responses.create(model=MODEL, input="x", max_output_tokens=3)
    assert response.output_text == "The"
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    (item,) = response.output
    assert item.type == "message"
    assert item.status == "incomplete"
    assert response.completed_at is None


_HEAD = (
    '"id":"resp_X","object":"response","created_at":0,"status":"%s","completed_at":%s,"error":null,'
    '"incomplete_details":null,"instructions":null,"max_output_tokens":null,"model":"openbmb/MiniCPM-V-2",'
    '"output":%s,"temperature":0.7,"top_p":0.8,"top_logprobs":0,"text":{"format":{"type":"text"},'
    '"verbosity":"medium"},"reasoning":{"effort":null,"summary":null},"metadata":{},"usage":%s,'
    '"system_fingerprint":"fp_test","store":false,"background":false,"service_tier":"default",'
    '"truncation":"disabled","parallel_tool_calls":false,"tool_choice":"auto","tools":[],'
    '"max_tool_calls":null,"previous_response_id":null,"conversation":null,"prompt":null,'
    '"prompt_cache_key":null,"prompt_cache_options":null,"prompt_cache_retention":null,'
    '"prompt_cache_diagnostics":null,"safety_identifier":null,"user":null,"image":null,'
    '"input_transformations":null,"moderation":null,"access_programs":null,"tool_usage":null'
)
_PART = '{"type":"output_text","text":"%s","annotations":[],"logprobs":[]}'
_ITEM = '{"id":"msg_X","type":"message","role":"assistant","status":"%s","content":[%s],"phase":null}'
_USAGE = (
    '{"input_tokens":14,"input_tokens_details":{"cached_tokens":0,"cache_write_tokens":0,"image_tokens":0,'
    '"text_tokens":14},"output_tokens":3,"output_tokens_details":{"reasoning_tokens":0},"total_tokens":17}'
)
_PLACE = '"item_id":"msg_X","output_index":0,"content_index":0'
_EVENTS = [
    ("response.created", '"response":{' + _HEAD % ("in_progress", "null", "[]", "null") + "}"),
    ("response.in_progress", '"response":{' + _HEAD % ("in_progress", "null", "[]", "null") + "}"),
    ("response.output_item.added", '"output_index":0,"item":' + _ITEM % ("in_progress", "")),
    ("response.content_part.added", _PLACE + ',"part":' + _PART % ""),
    ("response.output_text.delta", _PLACE + ',"delta":"H","logprobs":[]'),
    ("response.output_text.delta", _PLACE + ',"delta":"i","logprobs":[]'),
    ("response.output_text.done", _PLACE + ',"text":"Hi","logprobs":[]'),
    ("response.content_part.done", _PLACE + ',"part":' + _PART % "Hi"),
    ("response.output_item.done", '"output_index":0,"item":' + _ITEM % ("completed", _PART % "Hi")),
    (
        "response.completed",
        '"response":{'
        + _HEAD % ("completed", "0", "[" + _ITEM % ("completed", _PART % "Hi") + "]", _USAGE)
        + "}",
    ),
]


def test_the_events_byte_by_byte(http: httpx.Client, service: ScriptedService) -> None:
    service.engine.answer = "Hi"
    reply = http.post(PATH, json={"input": "x", "stream": True})
    assert reply.status_code == 200
    assert reply.headers["content-type"].split(";")[0] == "text/event-stream"
    assert reply.headers["cache-control"] == "no-cache"
    assert reply.headers["x-accel-buffering"] == "no"
    received = re.sub(r"(resp|msg)_[0-9a-f]{32}", r"\1_X", reply.text)
    received = re.sub(r'"(created_at|completed_at)":\d+', r'"\1":0', received)
    expected = "".join(
        f'event: {name}\ndata: {{"type":"{name}","sequence_number":{number},{rest}}}\n\n'
        for number, (name, rest) in enumerate(_EVENTS)
    )
    assert received == expected
    assert len(set(re.findall(r"_([0-9a-f]{32})", reply.text))) == 1


@pytest.mark.parametrize("answer", ["The answer.", "naïve 你好 🙂", " \n spaced  out \n ", ""])
def test_streamed_is_unary(client: OpenAI, http: httpx.Client, service: ScriptedService, answer: str) -> None:
    service.engine.answer = answer
    unary = client.responses.create(model=MODEL, input="x")
    events = list(client.responses.create(model=MODEL, input="x", stream=True))
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == unary.output_text == answer.strip()
    last = events[-1]
    assert last.type == "response.completed"
    same = {"output_text", "status", "usage", "incomplete_details"}
    assert [getattr(last.response, name) for name in same] == [getattr(unary, name) for name in same]
    types = [event["type"] for event in _typed_events(_stream(http))]
    assert types[:4] == [name for name, _ in _EVENTS[:4]]
    assert types[-4:] == [name for name, _ in _EVENTS[-4:]]


def _stream(http: httpx.Client, **fields: Any) -> bytes:
    return http.post(PATH, json={"input": "x", "stream": True} | fields).content


def test_the_clients_stream_helper(client: OpenAI) -> None:
    with client.responses.stream(model=MODEL, input="x") as stream:
        snapshots = [event.snapshot for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert snapshots[-1] == final.output_text == "The answer."
    assert snapshots[2] == "The"
    assert final.usage is not None
    assert final.usage.output_tokens == 12


async def test_the_async_client(async_client: AsyncOpenAI) -> None:
    assert (await async_client.responses.create(model=MODEL, input="x")).output_text == "The answer."
    async with async_client.responses.stream(model=MODEL, input="x") as stream:
        assert (await stream.get_final_response()).output_text == "The answer."


def test_an_incomplete_stream(client: OpenAI) -> None:
    *_, last = client.responses.create(model=MODEL, input="x", max_output_tokens=3, stream=True)
    assert last.type == "response.incomplete"
    assert last.response.status == "incomplete"
    assert last.response.output_text == "The"


@pytest.mark.parametrize("answer", ["The answer.", "naïve 你好 🙂", " x "])
def test_log_probabilities(client: OpenAI, service: ScriptedService, answer: str) -> None:
    service.engine.answer = answer
    fields: dict[str, Any] = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
    response = client.responses.create(model=MODEL, input="x", **fields)
    (item,) = response.output
    assert item.type == "message"
    (part,) = item.content
    assert part.type == "output_text"
    assert part.logprobs is not None
    assert b"".join(bytes(one.bytes) for one in part.logprobs).decode() == answer
    assert all(len(one.top_logprobs) == 2 for one in part.logprobs)
    assert response.usage is not None
    assert len(part.logprobs) == response.usage.output_tokens
    streamed: list[Any] = []
    for event in client.responses.create(model=MODEL, input="x", stream=True, **fields):
        if event.type == "response.output_text.delta":
            streamed += [one.to_dict() for one in event.logprobs]
        if event.type == "response.output_text.done":
            assert [one.to_dict() for one in event.logprobs] == streamed
    assert streamed == [one.to_dict() for one in part.logprobs]


def test_who_asks_for_no_logprobs_costs_none(http: httpx.Client, service: ScriptedService) -> None:
    body = http.post(PATH, json={"input": "x", "include": ["reasoning.encrypted_content"]}).json()
    assert body["output"][0]["content"][0]["logprobs"] == []
    assert service.engine.requests[0].sampling.logprobs is None


def test_what_a_chat_may_say_of_sampling_may_be_said_here(
    http: httpx.Client, service: ScriptedService
) -> None:
    fields: dict[str, Any] = {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 7,
        "min_p": 0.1,
        "repetition_penalty": 1.2,
        "presence_penalty": 0.5,
        "frequency_penalty": -0.5,
        "seed": 7,
        "min_tokens": 2,
        "ignore_eos": True,
        "stop_token_ids": [300],
        "cache_salt": "me",
    }
    assert http.post(PATH, json={"input": "x", "max_output_tokens": 9} | fields).status_code == 200
    assert http.post(CHAT, json=ask("x", max_tokens=9, **fields)).status_code == 200
    first, second = service.engine.requests
    assert (first.sampling, first.cache_salt) == (second.sampling, second.cache_salt)
    body = http.post(PATH, json={"input": "x", "stop": " answer"}).json()
    assert (body["status"], body["output"][0]["content"][0]["text"]) == ("completed", "The")


@pytest.mark.parametrize(
    "inert",
    [
        {
            "store": True,
            "user": "me",
            "service_tier": "auto",
            "safety_identifier": "x",
            "prompt_cache_key": "y",
        },
        {
            "prompt_cache_retention": "24h",
            "prompt_cache_options": {"ttl": "30m"},
            "parallel_tool_calls": True,
        },
        {
            "max_tool_calls": 3,
            "tools": [],
            "tool_choice": "auto",
            "truncation": "disabled",
            "background": False,
        },
        {"text": {"format": {"type": "text"}, "verbosity": "medium"}, "include": []},
        {
            "reasoning": {"effort": "none", "summary": "auto"},
            "stream_options": {"include_obfuscation": False},
        },
        {"reasoning": {}, "text": {}, "metadata": {}, "stop": None, "timings": False},
        {
            "instructions": None,
            "previous_response_id": None,
            "conversation": None,
            "tools": None,
            "model": None,
        },
        {
            "image": {"context_compression": "disabled"},
            "context_management": [],
            "logit_bias": {},
            "priority": 0,
        },
        {"input": [_message("x") | {"id": "msg_1", "status": "completed", "phase": None}]},
    ],
)
def test_what_changes_nothing_is_accepted(http: httpx.Client, inert: dict[str, Any]) -> None:
    for stream in (False, True):
        reply = http.post(PATH, json={"input": "x", "stream": stream} | inert)
        assert reply.status_code == 200, reply.text


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": 5}, "input"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"role": "tool", "content": "x"}]}, "input[0].role"),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]}, "input[0].type"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0].type"),
        ({"input": [_message("x", role="assistant"), _message("y")]}, "input[0].role"),
        ({"input": [_message("x"), _message("y", role="assistant")]}, "input[1].role"),
        ({"input": [_message("x", role="system")]}, "input"),
        ({"input": [_message({"type": "input_file", "file_id": "f"})]}, "input[0].content[0]"),
        ({"input": [_message({"type": "text", "text": "x"})]}, "input[0].content[0]"),
        ({"input": [_message({"type": "input_image", "file_id": "f"})]}, "input[0].content[0].file_id"),
        ({"input": [_message({"type": "input_image"})]}, "input[0].content[0].image_url"),
        ({"input": [_message(_image(b"noise"), "?")]}, "input[0].content[0].image_url"),
        ({"input": [_message("?", _image(detail="original"))]}, "input[0].content[1].detail"),
        ({"input": [_message(_image(), role="system"), _message("x")]}, "input[0].content[0]"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"background": True}, "background"),
        ({"background_options": {}}, "background_options"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"truncation": "auto"}, "truncation"),
        ({"reasoning": {"effort": "high"}}, "reasoning.effort"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
        ({"text": {"format": {"type": "json_object", "schema": {}}}}, "text.format.schema"),
        ({"text": {"format": {"type": "grammar"}}}, "text.format.type"),
        (
            {"text": {"format": {"type": "json_object"}}, "structured_outputs": {"regex": "a"}},
            "structured_outputs",
        ),
        ({"text": {"format": {"type": "json_object"}}, "stop": "a"}, "stop"),
        ({"text": {"format": {"type": "json_object"}}, "max_output_tokens": 1}, "max_output_tokens"),
        ({"text": {"verbosity": "low"}}, "text.verbosity"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"context_management": [{"type": "compaction"}]}, "context_management"),
        ({"image": {"context_compression": "enabled"}}, "image"),
        ({"moderation": {"model": "x"}}, "moderation"),
        ({"access_programs": {"cyber": "standard"}}, "access_programs"),
        ({"logit_bias": {"456": 1}}, "logit_bias"),
        ({"structured_outputs": {}}, "structured_outputs"),
        ({"priority": 1.5}, "priority"),
        ({"include": ["surprise"]}, "include[0]"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"top_logprobs": 21, "include": ["message.output_text.logprobs"]}, "top_logprobs"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"max_tokens": 5}, "max_tokens"),
        ({"metadata": {"a": 1}}, "metadata.a"),
        ({"metadata": {str(number): "x" for number in range(17)}}, "metadata"),
        ({"metadata": {"a": "x" * 513}}, "metadata.a"),
        ({"n": 2}, "n"),
        ({"num_beams": 2}, "num_beams"),
        ({"messages": []}, "messages"),
        ({"stream_options": {"include_usage": True}}, "stream_options.include_usage"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_what_cannot_be_done_is_named(
    http: httpx.Client, service: ScriptedService, fields: dict[str, Any], param: str
) -> None:
    for stream in (False, True):
        reply = http.post(PATH, json={"input": "x", "stream": stream} | fields)
        error = error_of(reply)
        assert (reply.status_code, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert not service.engine.requests
    assert service.generator.num_in_flight == 0


def test_limits_of_the_input(http: httpx.Client) -> None:
    for fields in ({"input": "x" * 600}, {"input": "x" * 100_000}, {"input": "x", "max_output_tokens": 510}):
        error = error_of(http.post(PATH, json=fields))
        assert (error["code"], error["param"]) == ("context_length_exceeded", "input")
    reply = http.post(PATH, json={"input": [_message(*[_image()] * 4)]})
    assert (reply.status_code, error_of(reply)["param"]) == (413, "input")


def test_a_failure_on_the_way(client: OpenAI, http: httpx.Client, service: ScriptedService) -> None:
    service.engine.fail_after = 3
    with pytest.raises(openai.InternalServerError):
        client.responses.create(model=MODEL, input="x")
    *_, error, failed = _typed_events(_stream(http))
    message = "The server failed while working on this request."
    assert error == {
        "type": "error",
        "sequence_number": failed["sequence_number"] - 1,
        "code": "server_error",
        "message": message,
        "param": None,
    }
    assert failed["type"] == "response.failed"
    assert failed["response"]["status"] == "failed"
    assert failed["response"]["error"] == {"code": "server_error", "message": message}
    (item,) = failed["response"]["output"]
    assert (item["status"], item["content"][0]["text"]) == ("incomplete", "The")
    seen = [event.type for event in client.responses.create(model=MODEL, input="x", stream=True)]
    assert seen[-2:] == ["error", "response.failed"]


def test_a_failure_before_the_first_token(http: httpx.Client, service: ScriptedService) -> None:
    service.engine.fail_after = 0
    events = _typed_events(_stream(http))
    assert [event["type"] for event in events] == [
        "response.created",
        "response.in_progress",
        "error",
        "response.failed",
    ]
    assert events[-1]["response"]["output"] == []


def test_requests_under_way_are_told_when_the_service_ends() -> None:
    with ScriptedService() as service:
        service.open()
        service.engine.endless, service.engine.pause_s = True, 0.005
        body = {"input": "x", "stream": True, "max_output_tokens": 400}
        with httpx.stream("POST", f"{service.base_url}{PATH}", json=body, timeout=30) as reply:
            received = bytearray()
            for piece in reply.iter_raw():
                received += piece
                if b'"delta":"T"' in received and service.availability.state == "ready":
                    service.availability.begin_drain()
                    service.availability.end_running()
        error, failed = _typed_events(bytes(received))[-2:]
        assert error["code"] == "model_not_ready"
        assert failed["response"]["error"]["code"] == "server_error"
        wait_until(lambda: service.generator.num_in_flight == 0)


def test_the_response_and_pings_go_out_while_the_image_encodes() -> None:
    with ScriptedService(api_config(ping_interval_s=0.02)) as service:
        service.open()
        service.encoder.gate.clear()
        body = {"input": [_message(_image(), "?")], "stream": True}
        with httpx.stream("POST", f"{service.base_url}{PATH}", json=body, timeout=30) as reply:
            received = bytearray()
            for piece in reply.iter_raw():
                received += piece
                if not service.encoder.gate.is_set() and received.count(b": ping\n\n") >= 2:
                    assert received.count(b"event: ") == 2
                    service.encoder.gate.set()
    assert _typed_events(bytes(received))[-1]["type"] == "response.completed"


@pytest.mark.parametrize("stream", [False, True])
def test_leaving_ends_it(service: ScriptedService, stream: bool) -> None:
    service.engine.endless, service.engine.pause_s = True, 0.005
    service.engine.max_model_len = 1_000_000
    body = {"input": "x", "max_output_tokens": 100_000, "stream": stream}
    if stream:
        with httpx.stream("POST", f"{service.base_url}{PATH}", json=body, timeout=30) as reply:
            received = bytearray()
            for piece in reply.iter_raw():
                received += piece
                if b"output_text.delta" in received:
                    break
    else:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{service.base_url}{PATH}", json=body, timeout=0.3)
    wait_until(lambda: service.generator.num_in_flight == 0)
    (request,) = service.engine.requests
    assert service.engine.closed == [request.request_id]


def test_a_key_is_needed_where_there_are_keys() -> None:
    with ScriptedService(api_config(api_keys=("secret",))) as service:
        service.open()
        for key, status in ((None, 401), ("wrong", 401), ("secret", 200)):
            headers = {} if key is None else {"authorization": f"Bearer {key}"}
            reply = httpx.post(f"{service.base_url}{PATH}", json={"input": "x"}, headers=headers, timeout=30)
            assert reply.status_code == status


def test_other_models_and_what_is_not_stored(client: OpenAI, http: httpx.Client) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.responses.create(model="gpt-9", input="x")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve("resp_1")
    assert http.get(PATH).status_code == 405


def test_nothing_before_the_model_is_there() -> None:
    with ScriptedService() as service:
        assert httpx.post(f"{service.base_url}{PATH}", json={"input": "x"}).status_code == 503
