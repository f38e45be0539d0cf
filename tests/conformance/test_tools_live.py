"""Tools with the embedded model, which was never trained for any, as OpenAI's client offers them."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import httpx
import jsonschema
import pytest
from openai import LengthFinishReasonError, OpenAI, pydantic_function_tool
from pydantic import BaseModel

from tests.conformance.wire import CHAT, ask, data_url, error_of
from tests.live_server import REPOSITORY, LiveServer

SHAPES = {
    "type": "image_url",
    "image_url": {"url": data_url((REPOSITORY / "samples/shapes.png").read_bytes())},
}
MESSAGES: list[Any] = ask(SHAPES, "What shape is this?")["messages"]
WEATHER: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 9},  # this model might never end it
        "days": {"type": "array", "items": {"enum": [1, 2]}, "maxItems": 2},
        "unit": {"enum": ["°C", "°F"]},
    },
    "required": ["city", "unit"],
    "additionalProperties": False,
}
COUNT: dict[str, Any] = {
    "type": "object",
    "properties": {"shape": {"enum": ["circle", "square"]}, "color": {"enum": ["red", "green"]}},
    "required": ["shape"],
}
SCHEMAS = {"get_weather": WEATHER, "count-shapes": COUNT}
TOOLS: list[Any] = [
    {"type": "function", "function": {"name": name, "description": f"Runs {name}.", "parameters": schema}}
    for name, schema in SCHEMAS.items()
]


class Paint(BaseModel):
    """Paints shapes."""

    shape: Literal["circle", "square"]
    color: Literal["red", "green"]


@pytest.fixture
def http(live: LiveServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=live.base_url, timeout=120) as client:
        yield client


@pytest.fixture
def openai(live: LiveServer) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{live.base_url}/v1", api_key="none", max_retries=0) as client:
        yield client


def _named(name: str) -> Any:
    return {"type": "function", "function": {"name": name}}


def _check_call(choice: dict[str, Any], names: set[str]) -> None:
    message = choice["message"]
    assert message["content"] is None
    (call,) = message["tool_calls"]
    assert call["function"]["name"] in names
    jsonschema.validate(json.loads(call["function"]["arguments"]), SCHEMAS[call["function"]["name"]])


@pytest.mark.parametrize(
    ("tool_choice", "names"), [("required", set(SCHEMAS)), (_named("count-shapes"), {"count-shapes"})]
)
def test_a_call_that_is_asked_for_comes_whole_and_streamed(
    openai: OpenAI, tool_choice: Any, names: set[str]
) -> None:
    fields: dict[str, Any] = {"model": "", "messages": MESSAGES, "tools": TOOLS, "tool_choice": tool_choice}
    fields |= {"temperature": 0, "parallel_tool_calls": True}
    (whole,) = openai.chat.completions.create(**fields).choices
    assert whole.finish_reason == "tool_calls"
    _check_call(whole.to_dict(), names)
    with openai.chat.completions.stream(**fields) as stream:
        kinds = {event.type for event in stream}
        streamed = stream.get_final_completion().choices[0]
    assert "tool_calls.function.arguments.done" in kinds
    assert not any(kind.startswith("content") for kind in kinds)
    assert streamed.finish_reason == "tool_calls"
    assert streamed.message.content is None
    assert whole.message.tool_calls
    assert streamed.message.tool_calls
    (one,), (other,) = streamed.message.tool_calls, whole.message.tool_calls
    assert other.type == "function"
    assert (one.function.name, one.function.arguments) == (other.function.name, other.function.arguments)


@pytest.mark.parametrize("tool_choice", ["auto", "none", None])
def test_a_question_is_answered_in_words_though_there_are_tools(openai: OpenAI, tool_choice: Any) -> None:
    free = openai.chat.completions.create(model="", messages=MESSAGES, temperature=0).choices[0]
    assert free.message.content == "circle"
    fields: dict[str, Any] = {} if tool_choice is None else {"tool_choice": tool_choice}
    (choice,) = openai.chat.completions.create(
        model="", messages=MESSAGES, tools=TOOLS, temperature=0, **fields
    ).choices
    assert choice.message.content == free.message.content
    assert choice.message.tool_calls is None
    assert choice.finish_reason == "stop"


def test_a_round_trip_with_parsed_arguments(openai: OpenAI) -> None:
    tools = [pydantic_function_tool(Paint)]
    completions = openai.chat.completions
    parsed = (
        completions.parse(model="", messages=MESSAGES, tools=tools, tool_choice="required", temperature=0)
        .choices[0]
        .message
    )
    with completions.stream(
        model="", messages=MESSAGES, tools=tools, tool_choice="required", temperature=0
    ) as stream:
        streamed = stream.get_final_completion().choices[0].message
    for message in (parsed, streamed):
        assert message.tool_calls
        (call,) = message.tool_calls
        assert isinstance(call.function.parsed_arguments, Paint)
        result: Any = {"role": "tool", "tool_call_id": call.id, "content": "Painted."}
        messages: Any = [*MESSAGES, message, result]
        (answer,) = completions.create(model="", messages=messages, tools=tools, temperature=0).choices
        assert answer.message.content
        assert answer.message.tool_calls is None
        (again,) = completions.create(
            model="", messages=messages, tools=tools, tool_choice=_named("Paint"), temperature=0
        ).choices
        assert again.finish_reason == "tool_calls"


def test_every_choice_calls_validly(http: httpx.Client) -> None:
    body = {"messages": MESSAGES, "tools": TOOLS, "tool_choice": "required", "max_tokens": 60}
    reply = http.post(CHAT, json=body | {"n": 4, "temperature": 1.5, "seed": 7}).json()
    for choice in reply["choices"]:
        _check_call(choice, set(SCHEMAS))
    assert len({choice["message"]["tool_calls"][0]["id"] for choice in reply["choices"]}) == 4


def test_a_call_that_is_cut_is_valid_and_says_so(http: httpx.Client, openai: OpenAI) -> None:
    body = {"messages": MESSAGES, "tools": TOOLS, "tool_choice": _named("get_weather"), "temperature": 1.2}
    refused = http.post(CHAT, json=body | {"max_tokens": 1})
    assert (refused.status_code, error_of(refused)["param"]) == (400, "max_tokens")
    least = int(error_of(refused)["message"].partition("needs ")[2].partition(":")[0])
    reasons = {}
    for max_tokens in range(least, least + 12):
        (choice,) = http.post(CHAT, json=body | {"max_tokens": max_tokens, "seed": 1}).json()["choices"]
        _check_call(choice, {"get_weather"})
        reasons[choice["finish_reason"]] = max_tokens
    assert reasons.keys() <= {"length", "tool_calls"}
    cut: dict[str, Any] = body | {"model": "", "max_tokens": reasons["length"], "seed": 1}
    with openai.chat.completions.stream(**cut) as stream, pytest.raises(LengthFinishReasonError):
        stream.get_final_completion()


def test_calls_and_words_in_one_batch(http: httpx.Client) -> None:
    free = {"messages": MESSAGES, "temperature": 0}
    bodies: list[dict[str, Any]] = [
        free,
        free | {"tools": TOOLS, "tool_choice": _named("count-shapes")},
        free | {"tools": TOOLS},
        free | {"tools": TOOLS, "tool_choice": "required", "max_tokens": 60},
    ]
    alone = [http.post(CHAT, json=body).json()["choices"][0] for body in bodies]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda body: http.post(CHAT, json=body).json()["choices"][0], bodies * 2))
    for reply in together[1::4] + together[3::4]:
        _check_call(reply, set(SCHEMAS))
    assert [reply["message"] for reply in together[::4]] == [alone[0]["message"]] * 2
    assert [reply["message"] for reply in together[2::4]] == [alone[2]["message"]] * 2
