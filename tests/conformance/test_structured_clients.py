"""Every client's own way to structured output, on the embedded model: what it parses is what was asked."""

from collections.abc import Iterator
from typing import Any, Literal

import pytest
from langchain_openai import ChatOpenAI
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel, ConfigDict, SecretStr

from tests.conformance.node_client import run_node
from tests.conformance.wire import image_part
from tests.live_server import REPOSITORY, LiveServer

PICTURE = (REPOSITORY / "samples" / "shapes.png").read_bytes()
MESSAGES: list[Any] = [
    {"role": "user", "content": [image_part(PICTURE), {"type": "text", "text": "What is in the middle?"}]}
]


class Shape(BaseModel):
    model_config = ConfigDict(extra="forbid")

    colour: Literal["red", "green", "blue", "orange"]
    name: Literal["star", "triangle", "circle", "square"]
    is_large: bool


@pytest.fixture
def client(live: LiveServer) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{live.base_url}/v1", api_key="none", max_retries=0) as openai_client:
        yield openai_client


@pytest.fixture
def model(client: OpenAI) -> str:
    return next(iter(client.models.list())).id


def test_openai_parses_into_a_pydantic_model(client: OpenAI, model: str) -> None:
    completion = client.chat.completions.parse(model=model, messages=MESSAGES, response_format=Shape, n=2)
    for choice in completion.choices:
        assert isinstance(choice.message.parsed, Shape)
        assert choice.finish_reason == "stop"


def test_openai_parses_a_stream(client: OpenAI, model: str) -> None:
    with client.chat.completions.stream(model=model, messages=MESSAGES, response_format=Shape) as stream:
        events = list(stream)
        completion = stream.get_final_completion()
    assert isinstance(completion.choices[0].message.parsed, Shape)
    assert any(event.type == "content.delta" and event.parsed for event in events), "parsed as it comes"


async def test_the_async_client_parses(live: LiveServer, model: str) -> None:
    async with AsyncOpenAI(base_url=f"{live.base_url}/v1", api_key="none") as client:
        completion = await client.chat.completions.parse(
            model=model, messages=MESSAGES, response_format=Shape
        )
    assert isinstance(completion.choices[0].message.parsed, Shape)


def test_langchain(live: LiveServer) -> None:
    # An empty name means the one model there is.
    chat = ChatOpenAI(base_url=f"{live.base_url}/v1", api_key=SecretStr("none"), model="")
    structured = chat.with_structured_output(Shape, method="json_schema")
    assert isinstance(structured.invoke(MESSAGES), Shape)


def test_openai_node(live: LiveServer) -> None:
    told = run_node("openai_client.mjs", "parse", live.base_url, PICTURE)
    assert [Shape.model_validate(parsed) for parsed in told]
    assert len(told) == 2


def test_the_ai_sdk(live: LiveServer) -> None:
    told = run_node("ai_sdk_client.mjs", "object", live.base_url, PICTURE)
    for parsed in told["objects"]:
        Shape.model_validate(parsed)
    assert len(told["objects"]) == 2
    assert told["partials"] > 0
