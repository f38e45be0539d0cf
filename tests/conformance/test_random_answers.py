"""Random answers over HTTP: a stream joined is the unary answer, in UTF-8, with its log-probabilities."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conformance.random_answer import TOKENIZER, RandomAnswer, RandomEngine, answers, stops_for
from tests.conformance.scripted_service import ScriptedService
from tests.conformance.wire import CHAT, ask, events_of


@pytest.fixture(scope="module")
def speaking() -> Iterator[tuple[httpx.Client, RandomEngine]]:
    engine = RandomEngine()
    with ScriptedService(token_engine=engine, tokenizer=TOKENIZER) as service:
        service.open()
        with httpx.Client(base_url=service.base_url, timeout=30) as client:
            yield client, engine


def _streamed(client: httpx.Client, body: dict[str, Any]) -> tuple[str, str, list[Any], Any]:
    """(text, finish reason, log-probabilities, usage), after checking the order of chunks."""
    reply = client.post(CHAT, json=body | {"stream": True, "stream_options": {"include_usage": True}})
    *chunks, usage, done = events_of(reply.content)
    assert (done, usage["choices"]) == ("[DONE]", [])
    choices = [chunk["choices"][0] for chunk in chunks]
    assert choices[0]["delta"] == {"role": "assistant", "content": ""}
    assert [choice["finish_reason"] for choice in choices[:-1]] == [None] * (len(choices) - 1)
    assert choices[-1]["delta"] == {}
    text = "".join(choice["delta"].get("content", "") for choice in choices)
    told = [one for choice in choices for one in (choice["logprobs"] or {"content": []})["content"]]
    return text, choices[-1]["finish_reason"], told, usage["usage"]


@settings(max_examples=40, deadline=None)
@given(answer=answers(), data=st.data())
def test_a_stream_says_what_the_unary_answer_says(
    speaking: tuple[httpx.Client, RandomEngine], answer: RandomAnswer, data: st.DataObject
) -> None:
    client, engine = speaking
    body = ask(stop=data.draw(stops_for(answer)), logprobs=data.draw(st.booleans()))
    engine.answer = replace(answer, has_logprobs=body["logprobs"])
    text, reason, told, usage = _streamed(client, body)
    whole = client.post(CHAT, json=body).json()
    (choice,) = whole["choices"]
    assert (text, reason) == (choice["message"]["content"], choice["finish_reason"])
    assert usage == whole["usage"]
    assert told == (choice["logprobs"] or {"content": []})["content"]
    assert len(told) == (usage["completion_tokens"] if body["logprobs"] else 0)
