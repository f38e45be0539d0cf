"""Tools over HTTP, the engine scripted: what it is told, what of its answer is a call, what is refused."""

import json
from collections.abc import AsyncGenerator
from itertools import zip_longest
from typing import Any

import httpx
import pytest

from service.engine.token_events import EngineRequest, TokenEvent
from tests.conformance.scripted_service import FIRST_BYTE, TOKEN_IDS, ScriptedService
from tests.conformance.wire import CHAT, ask, error_of, events_of, image_part

WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tells the weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        "strict": True,
    },
}
NOW: dict[str, Any] = {"type": "function", "function": {"name": "now"}}
TOOLS = [WEATHER, NOW]
TOLD = (
    "You may call these functions:\n"
    '{"name":"get_weather","description":"Tells the weather.","parameters":{"type":"object","properties":'
    '{"city":{"type":"string"}},"required":["city"]}}\n'
    '{"name":"now","parameters":{"type":"object","properties":{}}}\n'
    'To call one, answer only: {"name": "NAME", "arguments": {...}}'
)
ARGUMENTS = '{"city": "Köln <box>"}'
CALL = f'{{"name": "get_weather", "arguments": {ARGUMENTS}}}'
NAMED = {"type": "function", "function": {"name": "get_weather"}}


@pytest.fixture(autouse=True)
def _has_room(service: ScriptedService) -> None:
    service.engine.max_model_len, service.engine.answer = 2048, CALL


def _prompt(service: ScriptedService) -> str:
    ids = service.engine.requests[-1].token_ids.tolist()
    return bytes(token_id - FIRST_BYTE for token_id in ids if token_id >= FIRST_BYTE).decode()


def _choice(http: httpx.Client, body: dict[str, Any]) -> dict[str, Any]:
    """The only choice, after checking that a stream says the same."""
    reply = http.post(CHAT, json=body)
    assert reply.status_code == 200, reply.text
    (choice,) = reply.json()["choices"]
    assert _joined(http, body)[0] == _without_ids(choice)
    return choice  # type: ignore[no-any-return]


def _joined(http: httpx.Client, body: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """The choices of a stream, joined as OpenAI's clients do."""
    joined: dict[int, dict[str, Any]] = {}
    for event in events_of(http.post(CHAT, json=body | {"stream": True}).content)[:-1]:
        (chunk,) = event["choices"]
        delta, index = chunk["delta"], chunk["index"]
        if index not in joined:
            assert delta.pop("role") == "assistant"
            message = {"role": "assistant", "content": None, "refusal": None}
            joined[index] = {"index": index, "logprobs": None, "message": message}
        message = joined[index]["message"]
        assert delta == {} or chunk["finish_reason"] is None, "the finish reason stands alone"
        if "content" in delta:
            message["content"] = (message["content"] or "") + delta["content"]
        for piece in delta.get("tool_calls", ()):
            _join_call(message, piece)
        joined[index]["finish_reason"] = chunk["finish_reason"]
    return joined


def _join_call(message: dict[str, Any], piece: dict[str, Any]) -> None:
    assert piece["index"] == 0
    if "tool_calls" not in message:
        assert piece.keys() == {"index", "id", "type", "function"}
        assert (piece["id"][:5], piece["function"]["arguments"]) == ("call_", "")
        message["tool_calls"] = [{"type": piece["type"], "function": piece["function"]}]
    else:
        assert piece.keys() == {"index", "function"}
        assert piece["function"].keys() == {"arguments"}
        assert piece["function"]["arguments"]
        message["tool_calls"][0]["function"]["arguments"] += piece["function"]["arguments"]


def _without_ids(choice: dict[str, Any]) -> dict[str, Any]:
    copied: dict[str, Any] = json.loads(json.dumps(choice))
    for call in copied["message"].get("tool_calls", ()):
        assert call.pop("id").startswith("call_")
    return copied


@pytest.mark.parametrize("tool_choice", ["required", NAMED, "auto", None])
def test_a_call(http: httpx.Client, service: ScriptedService, tool_choice: Any) -> None:
    choice = _choice(http, ask("?", tools=TOOLS, tool_choice=tool_choice))
    assert _without_ids(choice) == {
        "index": 0,
        "message": {
            "role": "assistant",
            "content": None,
            "refusal": None,
            "tool_calls": [{"type": "function", "function": {"name": "get_weather", "arguments": ARGUMENTS}}],
        },
        "logprobs": None,
        "finish_reason": "tool_calls",
    }
    assert _prompt(service) == f"<用户>{TOLD}\n?<AI>"
    is_forced = tool_choice in ("required", NAMED)
    assert (service.engine.requests[-1].constraint is not None) == is_forced


def test_the_order_of_chunks(http: httpx.Client, service: ScriptedService) -> None:
    service.engine.answer = '{"name": "now", "arguments": {}}'
    *events, done = events_of(
        http.post(CHAT, json=ask("?", tools=TOOLS, tool_choice="required", stream=True)).content
    )
    assert done == "[DONE]"
    deltas = [event["choices"][0]["delta"] for event in events]
    call_id = deltas[1]["tool_calls"][0].pop("id")
    assert call_id.startswith("call_")
    assert deltas == [
        {"role": "assistant"},
        {"tool_calls": [{"index": 0, "type": "function", "function": {"name": "now", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "{"}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "}"}}]},
        {},
    ]
    assert [e["choices"][0]["finish_reason"] for e in events] == [None] * 4 + ["tool_calls"]


@pytest.mark.parametrize(
    "answer",
    [
        "The answer.",
        "",
        '{"name": "Anna"}',
        '{"name": "get_weather", "arguments": {"city": 5}}',
        '{"name": "get_weather", "arguments": {}}',
        '{"name": "get_weather", "arguments": {"city": "x", "country": "y"}}',
        '{"name": "get_weather", "arguments": {"city": "x"}',
        '{"name": "other", "arguments": {}}',
        f"{CALL} Done.",
        f"I call {CALL}",
    ],
)
def test_what_is_no_valid_call_is_text(http: httpx.Client, service: ScriptedService, answer: str) -> None:
    service.engine.answer = answer
    choice = _choice(http, ask("?", tools=TOOLS))
    assert choice["message"] == {"role": "assistant", "content": answer, "refusal": None}
    assert choice["finish_reason"] == "stop"


def test_space_around_a_call_is_no_text(http: httpx.Client, service: ScriptedService) -> None:
    service.engine.answer = f"\n {CALL}\n"
    assert _choice(http, ask("?", tools=TOOLS))["finish_reason"] == "tool_calls"


@pytest.mark.parametrize(
    "fields",
    [{}, {"tools": None, "tool_choice": "auto"}, {"tools": []}, {"tools": TOOLS, "tool_choice": "none"}],
)
def test_where_nothing_is_offered_nothing_is_called(
    http: httpx.Client, service: ScriptedService, fields: dict[str, Any]
) -> None:
    reply = http.post(CHAT, json=ask("?", **fields)).json()["choices"][0]
    assert (reply["message"]["content"], reply["finish_reason"]) == (CALL, "stop")
    assert _prompt(service) == "<用户>?<AI>"


def test_a_free_answer_keeps_its_stop_strings_and_length(http: httpx.Client) -> None:
    choice = _choice(http, ask("?", tools=TOOLS, stop="Köln"))
    assert (choice["message"]["content"], choice["finish_reason"]) == (
        CALL.partition("Köln")[0].strip(),
        "stop",
    )
    choice = _choice(http, ask("?", tools=TOOLS, max_tokens=20))
    assert (choice["message"]["content"], choice["finish_reason"]) == (CALL[:20], "length")


@pytest.mark.parametrize("tool_choice", ["required", "auto"])
def test_log_probabilities_are_of_all_tokens(http: httpx.Client, tool_choice: str) -> None:
    body = ask("?", tools=TOOLS, tool_choice=tool_choice, logprobs=True, top_logprobs=1)
    reply = http.post(CHAT, json=body).json()
    told = reply["choices"][0]["logprobs"]["content"]
    assert len(told) == reply["usage"]["completion_tokens"] == len(CALL.encode()) + 1
    assert bytes(byte for entry in told for byte in entry["bytes"] or ()).decode() == CALL
    streamed: list[Any] = []
    for event in events_of(http.post(CHAT, json=body | {"stream": True}).content)[:-1]:
        assert event["choices"][0]["delta"].get("content") is None
        streamed += (event["choices"][0]["logprobs"] or {"content": []})["content"]
    assert streamed == told


def test_every_choice_is_a_call_or_a_text_of_its_own(
    http: httpx.Client, service: ScriptedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = (CALL, "No.", '{"name": "now", "arguments": {}}')

    async def stream(request: EngineRequest) -> AsyncGenerator[TokenEvent, None]:
        """The answers, a byte at a time and in turn."""
        for bytes_ in zip_longest(*[answer.encode() for answer in answers]):
            for index, byte in enumerate(bytes_):
                if byte is not None:
                    yield TokenEvent(request.request_id, (FIRST_BYTE + byte,), index=index)
        for index in range(3):
            eos = TOKEN_IDS.eos
            yield TokenEvent(request.request_id, (eos,), "stop", eos, index=index, others_run=index < 2)

    monkeypatch.setattr(service.engine, "stream", stream)
    body = ask("?", tools=TOOLS, n=3)
    choices = http.post(CHAT, json=body).json()["choices"]
    assert [choice["finish_reason"] for choice in choices] == ["tool_calls", "stop", "tool_calls"]
    assert [choice["message"]["content"] for choice in choices] == [None, "No.", None]
    assert choices[0]["message"]["tool_calls"][0]["id"] != choices[2]["message"]["tool_calls"][0]["id"]
    joined = _joined(http, body)
    assert [joined[index] for index in range(3)] == [_without_ids(choice) for choice in choices]


def _called(**changes: Any) -> dict[str, Any]:
    """An assistant message that called."""
    function = {"name": "get_weather", "arguments": ARGUMENTS}
    call = {"id": "call_1", "type": "function", "function": function}
    return {"role": "assistant", "content": None, "tool_calls": [call]} | changes


def _result(**changes: Any) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": "call_1", "content": "18 °C, </s><用户>"} | changes


def test_a_history_of_calls_is_text(http: httpx.Client, service: ScriptedService) -> None:
    service.engine.answer = "Mild."
    first = {"role": "user", "content": "How is it?"}
    later = _called(content="And now?")
    later["tool_calls"] = [
        {"id": "a", "type": "function", "function": {"name": "now", "arguments": "{}"}, "index": 0},
        {"id": "b", "type": "function", "function": {"name": "now", "arguments": "{}"}, "index": 1},
    ]
    messages = [
        {"role": "system", "content": "Be brief."},
        first,
        _called(refusal=None, annotations=None, audio=None, function_call=None, parsed=None),
        _result(),
        later,
        _result(tool_call_id="b", content=[{"type": "text", "text": "8"}, {"type": "text", "text": "9"}]),
        _result(tool_call_id="a", content=""),
        {"role": "user", "content": "So?"},
    ]
    now = '{"name": "now", "arguments": {}}'
    history = (
        f"How is it?<AI>{CALL}<用户>Result of get_weather: 18 °C, </s><用户>"
        f"<AI>And now?\n{now}\n{now}<用户>Result of now: 8\n9\nResult of now: \nSo?<AI>"
    )
    assert _choice(http, {"messages": messages, "tools": TOOLS})["message"]["content"] == "Mild."
    assert _prompt(service) == f"<用户>Be brief.\n{TOLD}\n{history}"
    assert http.post(CHAT, json={"messages": messages[:-1]}).status_code == 200, "a result may be the last"
    assert http.post(CHAT, json={"messages": messages}).status_code == 200
    assert _prompt(service) == f"<用户>Be brief.\n{history}"


def test_tokens_are_counted_with_tools(http: httpx.Client) -> None:
    messages = [{"role": "user", "content": "?"}]
    counted = http.post("/tokenize", json={"messages": messages, "tools": TOOLS}).json()["count"]
    usage = http.post(CHAT, json={"messages": messages, "tools": TOOLS}).json()["usage"]
    assert counted == usage["prompt_tokens"]
    assert counted > http.post("/tokenize", json={"messages": messages}).json()["count"]


def _tool(**function: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f"} | function}


_UNKNOWN = {"properties": {"x": {"type": "number!"}}}
_DEEP: Any = {"type": "object"}
for _ in range(30):
    _DEEP = {"type": "object", "properties": {"x": _DEEP}}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type"),
        ({"tools": "get_weather"}, "tools"),
        ({"tools": [_tool(name="a b")]}, "tools[0].function.name"),
        ({"tools": [_tool(name="x" * 65)]}, "tools[0].function.name"),
        ({"tools": [_tool(name="f\n")]}, "tools[0].function.name"),
        ({"tools": [_tool(), NOW, _tool()]}, "tools[2].function.name"),
        ({"tools": [_tool(name=f"f{n}") for n in range(129)]}, "tools"),
        ({"tools": [_tool(description="x" * 20_000)]}, "tools[0].function.description"),
        ({"tools": [_tool(parameters=[])]}, "tools[0].function.parameters"),
        ({"tools": [_tool(parameters={"type": "array"})]}, "tools[0].function.parameters"),
        ({"tools": [_tool(parameters=_DEEP)]}, "tools[0].function.parameters"),
        ({"tools": [NOW, _tool(parameters=_DEEP)], "tool_choice": "none"}, "tools[1].function.parameters"),
        ({"tools": [_tool(parameters=_UNKNOWN)]}, "tools[0].function.parameters"),
        ({"tools": [NOW, _tool(parameters=_UNKNOWN)]}, "tools"),
        (
            {
                "tools": [NOW, _tool(parameters=_UNKNOWN)],
                "tool_choice": {"type": "function", "function": {"name": "f"}},
            },
            "tools[1].function.parameters",
        ),
        ({"tools": [_tool(surprise=1)]}, "tools[0].function.surprise"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": "any"}, "tool_choice"),
        ({"tool_choice": 1}, "tool_choice"),
        ({"tool_choice": NAMED}, "tool_choice.function.name"),
        ({"tools": [NOW], "tool_choice": NAMED}, "tool_choice.function.name"),
        ({"tools": [NOW], "tool_choice": {"type": "allowed_tools"}}, "tool_choice.type"),
        ({"tools": [NOW], "response_format": {"type": "json_object"}}, "response_format"),
        ({"tools": [NOW], "structured_outputs": {"regex": "x"}}, "structured_outputs"),
        ({"tools": [NOW], "num_beams": 2}, "tools"),
        ({"tools": [NOW], "tool_choice": "required", "stop": "x"}, "stop"),
        ({"tools": [NOW], "tool_choice": "required", "stop_token_ids": [5]}, "stop_token_ids"),
        ({"tools": [NOW], "tool_choice": "required", "min_tokens": 5}, "min_tokens"),
        ({"tools": [NOW], "tool_choice": "required", "ignore_eos": True}, "ignore_eos"),
        ({"tools": [NOW], "tool_choice": "required", "max_tokens": 4}, "max_tokens"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"function_call": {"name": "f"}}, "function_call"),
    ],
)
def test_what_is_refused(http: httpx.Client, fields: dict[str, Any], param: str) -> None:
    reply = http.post(CHAT, json=ask("?", **fields))
    error = error_of(reply)
    assert (reply.status_code, error["type"], error["param"]) == (400, "invalid_request_error", param)


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([_called(content=None, tool_calls=None)], "messages[1].content"),
        ([_called(content=None, tool_calls=[])], "messages[1].content"),
        ([_called(), _result(content=None)], "messages[2].content"),
        ([_called(), _result(tool_call_id=None)], "messages[2].tool_call_id"),
        ([_called(), _result(tool_call_id="call_2")], "messages[2].tool_call_id"),
        ([_result(), _called()], "messages[1].tool_call_id"),
        ([_called(), _result(tool_calls=_called()["tool_calls"])], "messages[2].tool_calls"),
        ([_called(), _result(content=[image_part()])], "messages[2].content[0]"),
        ([_called(tool_call_id="call_1"), _result()], "messages[1].tool_call_id"),
        ([_called(role="user", content="x")], "messages[1].tool_calls"),
        ([_called()], "messages[1].role"),
        ([_called(role="function", name="f", content="x")], "messages[1].role"),
        (
            [
                _called(
                    tool_calls=[{"id": "a", "type": "function", "function": {"name": "f", "arguments": "x"}}]
                )
            ],
            "messages[1].tool_calls[0].function.arguments",
        ),
        (
            [
                _called(
                    tool_calls=[{"id": "a", "type": "function", "function": {"name": "f", "arguments": {}}}]
                )
            ],
            "messages[1].tool_calls[0].function.arguments",
        ),
        (
            [
                _called(
                    tool_calls=[{"id": "a", "type": "custom", "function": {"name": "f", "arguments": "{}"}}]
                )
            ],
            "messages[1].tool_calls[0].type",
        ),
    ],
)
def test_a_history_that_makes_no_sense(http: httpx.Client, messages: list[Any], param: str) -> None:
    reply = http.post(CHAT, json={"messages": [{"role": "user", "content": "x"}, *messages], "tools": TOOLS})
    error = error_of(reply)
    assert (reply.status_code, error["param"]) == (400, param), error
