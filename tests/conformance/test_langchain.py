"""LangChain's ChatOpenAI, as it is pointed at any OpenAI-compatible service."""

from typing import Any, cast

import openai
import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, SystemMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from tests.conformance.scripted_service import MODEL, QUERY_NUM, ScriptedService
from tests.conformance.wire import image_part


@pytest.fixture
def chat(service: ScriptedService) -> ChatOpenAI:
    # It is not closed: all ChatOpenAI of one base_url share a connection pool.
    return ChatOpenAI(
        model=MODEL, base_url=f"{service.base_url}/v1", api_key=SecretStr("unused"), max_retries=0
    )


def test_invoke(chat: ChatOpenAI, service: ScriptedService) -> None:
    answer = chat.invoke(
        [SystemMessage("Be brief."), HumanMessage("x"), AIMessage("y"), HumanMessage("z")], stop=["never"]
    )
    assert answer.content == "The answer."
    assert answer.response_metadata["finish_reason"] == "stop"
    assert answer.response_metadata["model_name"] == MODEL
    assert answer.id is not None
    (request,) = service.engine.requests
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["input_tokens"] == len(request.token_ids)
    assert answer.usage_metadata["output_tokens"] == len("The answer.") + 1
    assert answer.usage_metadata["input_token_details"]["cache_read"] == 0


@pytest.mark.parametrize("stream_usage", [False, True])
def test_stream(chat: ChatOpenAI, stream_usage: bool) -> None:
    chunks = list(chat.stream("x", stream_usage=stream_usage))
    assert "".join(str(chunk.content) for chunk in chunks) == "The answer."
    gathered = chunks[0]
    for chunk in chunks[1:]:
        gathered += chunk
    assert gathered.response_metadata["finish_reason"] == "stop"
    if stream_usage:
        assert gathered.usage_metadata == chat.invoke("x").usage_metadata
    else:
        assert gathered.usage_metadata is None


async def test_the_asynchronous_ways(chat: ChatOpenAI) -> None:
    assert (await chat.ainvoke("x")).content == "The answer."
    assert "".join([str(chunk.content) async for chunk in chat.astream("x")]) == "The answer."


def test_the_responses_api(service: ScriptedService) -> None:
    chat = ChatOpenAI(
        model=MODEL,
        base_url=f"{service.base_url}/v1",
        api_key=SecretStr("unused"),
        use_responses_api=True,
        max_retries=0,
    )
    answer = chat.invoke("x")
    assert answer.text == "The answer."
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["output_tokens"] == len("The answer.") + 1
    assert "".join(str(chunk.text) for chunk in chat.stream("x")) == "The answer."


def test_images(chat: ChatOpenAI, service: ScriptedService) -> None:
    answer = chat.invoke([HumanMessage([{"type": "text", "text": "Which?"}, image_part()])])
    assert answer.content == "The answer."
    # LangChain's own form of an image, which it translates.
    own = {
        "type": "image",
        "base64": image_part()["image_url"]["url"].partition(",")[2],
        "mime_type": "image/png",
    }
    chat.invoke([HumanMessage([{"type": "text", "text": "Which?"}, own])])
    for request in service.engine.requests:
        assert [span.embeddings.shape[0] for span in request.image_spans] == [QUERY_NUM]


def test_batch(chat: ChatOpenAI, service: ScriptedService) -> None:
    inputs: list[Any] = [[HumanMessage(text)] for text in ("a", "b", "c")]
    answers: list[BaseMessage] = list(chat.batch(inputs))
    assert [answer.content for answer in answers] == ["The answer."] * 3
    assert len(service.engine.requests) == 3


def test_bound_fields(chat: ChatOpenAI, service: ScriptedService) -> None:
    bound = chat.bind(logprobs=True, top_logprobs=2, seed=5, max_tokens=3, temperature=0.25)
    answer = bound.invoke("x")
    content = answer.response_metadata["logprobs"]["content"]
    assert [one["token"] for one in content] == ["T", "h", "e"]
    assert all(len(one["top_logprobs"]) == 2 for one in content)
    assert answer.response_metadata["finish_reason"] == "length"
    sampling = service.engine.requests[0].sampling
    assert (sampling.seed, sampling.max_tokens, sampling.temperature) == (5, 3, 0.25)


def test_errors_are_the_openai_packages(chat: ChatOpenAI, service: ScriptedService) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        chat.invoke("x", temperature=3)
    assert caught.value.param == "temperature"
    service.engine.fail_after = 3
    with pytest.raises(openai.APIError, match="The server failed"):
        list(chat.stream("x"))


@tool
def get_weather(city: str) -> str:
    """Tells the weather."""
    return f"Rain in {city}."


@pytest.mark.parametrize("tool_choice", ["required", "get_weather", "auto"])
def test_tools(chat: ChatOpenAI, service: ScriptedService, tool_choice: str) -> None:
    service.engine.max_model_len = 2048
    service.engine.answer = '{"name": "get_weather", "arguments": {"city": "Köln"}}'
    bound = chat.bind_tools([get_weather], tool_choice=tool_choice)
    message = bound.invoke("x")
    gathered, *chunks = cast("list[AIMessageChunk]", list(bound.stream("x")))
    for chunk in chunks:
        gathered += chunk
    for told in (message, gathered):
        assert told.content == ""
        (call,) = told.tool_calls
        assert (call["name"], call["args"]) == ("get_weather", {"city": "Köln"})
        service.engine.answer = "The answer."
        answer = chat.bind_tools([get_weather]).invoke([HumanMessage("x"), told, get_weather.invoke(call)])
        assert (answer.content, answer.tool_calls) == ("The answer.", [])
