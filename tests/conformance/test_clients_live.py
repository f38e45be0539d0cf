"""All clients ask the embedded model the same about a picture, each in its own way: they get one answer."""

from typing import Any

import httpx
import pytest
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI
from openai import OpenAI
from pydantic import SecretStr

from tests.conformance.node_client import run_node
from tests.conformance.wire import CHAT, ask, image_part
from tests.live_server import REPOSITORY, LiveServer

PICTURE = (REPOSITORY / "samples" / "shapes.png").read_bytes()
CONTENT: list[Any] = [image_part(PICTURE), {"type": "text", "text": "Where is the red star?"}]


@pytest.fixture(scope="module")
def expected(live: LiveServer) -> dict[str, Any]:
    """The answer to a bare POST."""
    body = ask(*CONTENT, temperature=0, max_tokens=16)
    reply = httpx.post(f"{live.base_url}{CHAT}", json=body, timeout=120).json()
    text, usage = reply["choices"][0]["message"]["content"], reply["usage"]
    assert text
    return {
        "text": text,
        "promptTokens": usage["prompt_tokens"],
        "completionTokens": usage["completion_tokens"],
    }


@pytest.mark.parametrize("script", ["openai_client.mjs", "ai_sdk_client.mjs"])
def test_clients_in_javascript(live: LiveServer, expected: dict[str, Any], script: str) -> None:
    assert run_node(script, "greedy", live.base_url, PICTURE) == expected


def test_openai_python(live: LiveServer, expected: dict[str, Any]) -> None:
    with OpenAI(base_url=f"{live.base_url}/v1", api_key="none") as client:
        (model,) = client.models.list()
        with client.chat.completions.stream(
            model=model.id,
            messages=[{"role": "user", "content": CONTENT}],
            temperature=0,
            max_tokens=16,
            stream_options={"include_usage": True},
        ) as stream:
            completion = stream.get_final_completion()
    assert completion.choices[0].message.content == expected["text"]
    assert completion.usage is not None
    assert completion.usage.prompt_tokens == expected["promptTokens"]
    assert completion.usage.completion_tokens == expected["completionTokens"]


def test_langchain(live: LiveServer, expected: dict[str, Any]) -> None:
    # An empty name means the one model there is.
    chat = ChatOpenAI(base_url=f"{live.base_url}/v1", api_key=SecretStr("none"), model="", temperature=0)
    answer = chat.bind(max_tokens=16).invoke([HumanMessage(CONTENT)])
    assert answer.content == expected["text"]
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["input_tokens"] == expected["promptTokens"]
    assert answer.usage_metadata["output_tokens"] == expected["completionTokens"]
