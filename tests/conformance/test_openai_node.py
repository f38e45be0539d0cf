"""The openai package of Node.js: answers, streams, errors, retries, and leaving."""

import httpx

from tests.conformance.node_client import run_node
from tests.conformance.scripted_service import MODEL, QUERY_NUM, ScriptedService, wait_until
from tests.conformance.wire import CHAT, ask

SCRIPT = "openai_client.mjs"


def _is_left(service: ScriptedService) -> bool:
    return bool(service.engine.requests) and service.generator.num_in_flight == 0


def test_an_answer(service: ScriptedService) -> None:
    told = run_node(SCRIPT, "unary", service.base_url)
    completion = told["completion"]
    assert told["status"] == 200
    assert told["requestID"].startswith("req_")
    assert [choice["message"]["content"] for choice in completion["choices"]] == [
        "The answer.",
        "The answer.1",
    ]
    assert completion["usage"]["completion_tokens"] == 12 + 13
    first = completion["choices"][0]["logprobs"]["content"][0]
    assert (first["token"], first["logprob"], first["bytes"]) == ("T", -84, [84])


def test_an_image(service: ScriptedService) -> None:
    completion = run_node(SCRIPT, "image", service.base_url)
    assert completion["usage"]["prompt_tokens_details"]["image_tokens"] == QUERY_NUM
    assert len(service.engine.requests[0].image_spans) == 1


def test_a_stream(service: ScriptedService) -> None:
    whole = httpx.post(f"{service.base_url}{CHAT}", json=ask(n=2), timeout=30).json()
    told = run_node(SCRIPT, "stream", service.base_url)
    assert told["texts"] == [choice["message"]["content"] for choice in whole["choices"]]
    assert told["finishReasons"] == ["stop", "stop"]
    assert set(told["usage"]) == set(whole["usage"])
    assert told["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"]


def test_the_stream_helper(service: ScriptedService) -> None:
    told = run_node(SCRIPT, "helper", service.base_url)
    (choice,) = told["completion"]["choices"]
    assert told["text"] == choice["message"]["content"] == "The answer."
    assert (choice["message"]["role"], choice["finish_reason"]) == ("assistant", "stop")
    assert len(choice["logprobs"]["content"]) == len("The answer.") + 1


def test_a_completion(service: ScriptedService) -> None:
    told = run_node(SCRIPT, "completion", service.base_url)
    assert told["texts"] == [choice["text"] for choice in told["whole"]["choices"]] == ["The answer."] * 2
    assert told["whole"]["object"] == "text_completion"
    assert told["whole"]["choices"][0]["logprobs"]["tokens"][:3] == ["T", "h", "e"]


def test_a_response(service: ScriptedService) -> None:
    told = run_node(SCRIPT, "response", service.base_url)
    assert told["whole"] == told["text"] == told["gathered"] == "The answer."
    assert told["status"] == "completed"
    request, _ = service.engine.requests
    assert told["usage"]["input_tokens"] == len(request.token_ids)
    assert [span.embeddings.shape[0] for span in request.image_spans] == [QUERY_NUM]


def test_a_model_with_a_slash_in_its_name(service: ScriptedService) -> None:
    assert run_node(SCRIPT, "retrieve", service.base_url)["id"] == MODEL


def test_errors_are_parsed(service: ScriptedService) -> None:
    errors = run_node(SCRIPT, "errors", service.base_url)
    assert all(error["isAPIError"] and error["requestID"].startswith("req_") for error in errors)
    assert all(error["type"] == "invalid_request_error" for error in errors)
    assert [(error["name"], error["status"], error["code"], error["param"]) for error in errors] == [
        ("BadRequestError", 400, None, "temperature"),
        ("NotFoundError", 404, "model_not_found", "model"),
        ("BadRequestError", 400, "unsupported_parameter", "surprise"),
        ("NotFoundError", 404, "model_not_found", "model"),
    ]


def test_a_failure_on_the_way(service: ScriptedService) -> None:
    service.engine.fail_after = 3
    told = run_node(SCRIPT, "failure", service.base_url)
    assert told["text"] == "The"
    assert told["error"]["isAPIError"]
    assert told["error"]["type"] == "server_error"
    assert "The server failed" in told["error"]["message"]


def test_a_full_queue_is_asked_again_twice(full_service: ScriptedService) -> None:
    told = run_node(SCRIPT, "overloaded", full_service.base_url)
    assert told["counts"] == ["0", "1", "2"]
    assert (told["error"]["name"], told["error"]["code"]) == ("RateLimitError", "rate_limit_exceeded")


def test_an_aborted_stream_ends_its_generation(endless: ScriptedService) -> None:
    assert run_node(SCRIPT, "abort", endless.base_url)["chunks"] >= 3
    wait_until(lambda: _is_left(endless))
    assert endless.engine.closed == [request.request_id for request in endless.engine.requests]


def test_a_timeout_ends_the_generation(endless: ScriptedService) -> None:
    assert run_node(SCRIPT, "timeout", endless.base_url)["name"] == "APIConnectionTimeoutError"
    wait_until(lambda: _is_left(endless))
    assert endless.engine.closed == [request.request_id for request in endless.engine.requests]
