"""Guessed tokens over the wire: nobody can tell, but by the log."""

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.conformance.wire import CHAT
from tests.live_server import LiveServer

QUESTION = "Which shape is red? Which shape is red? Which shape is red?"


@pytest.fixture(scope="module")
def guessing() -> Iterator[LiveServer]:
    # Exact: rounded activations would make a near tie of a guess's other order of sums.
    exact = {"inference_precision": "f32", "kv_cache_precision": "f32"}
    with LiveServer(num_speculative_tokens=6, **exact) as server:
        yield server


def _ask(server: LiveServer, **fields: Any) -> dict[str, Any]:
    body = {
        "messages": [{"role": "user", "content": QUESTION}],
        "temperature": 0,
        "max_tokens": 90,
        "ignore_eos": True,
    }
    reply = httpx.post(server.base_url + CHAT, json=body | fields, timeout=300)
    assert reply.status_code == 200, reply.text
    answer: dict[str, Any] = reply.json()
    return answer


@pytest.mark.parametrize(
    "fields",
    [{}, {"repetition_penalty": 1.1}, {"logprobs": True, "top_logprobs": 2}, {"max_tokens": 17}],
    ids=str,
)
def test_an_answer_is_that_of_a_request_for_two_which_are_not_guessed(
    guessing: LiveServer, fields: dict[str, Any]
) -> None:
    (one,), (first, second) = (_ask(guessing, n=n, **fields)["choices"] for n in (1, 2))
    assert one["message"] == first["message"] == second["message"]
    assert one["finish_reason"] == first["finish_reason"]
    if "logprobs" in fields:
        tokens = [[entry["token"] for entry in choice["logprobs"]["content"]] for choice in (one, first)]
        assert tokens[0] == tokens[1]
        assert len(tokens[0]) == 90


def test_a_stop_string_within_a_guess_ends_the_answer_there(guessing: LiveServer) -> None:
    whole = _ask(guessing)["choices"][0]["message"]["content"]
    stop = whole[len(whole) // 2 :][:2]
    reply = _ask(guessing, stop=[stop])
    assert reply["choices"][0]["message"]["content"] == whole[: whole.index(stop)].rstrip()
    assert reply["choices"][0]["finish_reason"] == "stop"
    assert reply["usage"]["completion_tokens"] < 90


def test_the_log_tells_how_many_were_accepted(guessing: LiveServer) -> None:
    """The last test here: the server ends with it."""
    log = guessing.stop()
    counts = re.search(r"speculation: (\d+) of (\d+) guessed tokens accepted", log)
    assert counts is not None, log
    assert 0 < int(counts[1]) <= int(counts[2])
