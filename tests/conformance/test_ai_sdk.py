"""The Vercel AI SDK with its provider for OpenAI-compatible services."""

from tests.conformance.node_client import run_node
from tests.conformance.scripted_service import MODEL, QUERY_NUM, ScriptedService, wait_until

SCRIPT = "ai_sdk_client.mjs"


def test_generate_text(service: ScriptedService) -> None:
    told = run_node(SCRIPT, "generate", service.base_url)
    assert (told["text"], told["finishReason"], told["modelId"]) == ("The answer.", "stop", MODEL)
    assert told["id"].startswith("chatcmpl-")
    (request,) = service.engine.requests
    assert (request.sampling.temperature, request.sampling.seed) == (0.5, 7)
    assert request.sampling.max_tokens == 100
    assert told["usage"]["outputTokens"] == len("The answer.") + 1
    assert told["usage"]["inputTokens"] == len(request.token_ids)


def test_an_image(service: ScriptedService) -> None:
    told = run_node(SCRIPT, "image", service.base_url)
    assert told["text"] == "The answer."
    (request,) = service.engine.requests
    assert [span.embeddings.shape[0] for span in request.image_spans] == [QUERY_NUM]


def test_stream_text(service: ScriptedService) -> None:
    told = run_node(SCRIPT, "stream", service.base_url)
    assert told["text"] == "The answer."
    assert told["types"] == [
        "start",
        "start-step",
        "text-start",
        "text-delta",
        "text-end",
        "finish-step",
        "finish",
    ]
    assert told["errors"] == []
    assert told["finish"]["finishReason"] == "stop"
    assert told["finish"]["totalUsage"]["outputTokens"] == len("The answer.") + 1


def test_tools(service: ScriptedService) -> None:
    service.engine.max_model_len = 2048
    service.engine.answer = '{"name": "get_weather", "arguments": {"city": "Köln"}}'
    told = run_node(SCRIPT, "tools", service.base_url)
    assert (told["text"], told["finishReason"]) == ("", "tool-calls")
    assert told["inputs"] == [{"toolName": "get_weather", "input": {"city": "Köln"}}]
    assert told["outputs"] == ["Rain in Köln."]
    assert told["types"] == [
        "start",
        "start-step",
        "tool-input-start",
        "tool-input-delta",
        "tool-input-end",
        "tool-call",
        "tool-result",
        "finish-step",
        "finish",
    ]
    assert all(request.constraint is not None for request in service.engine.requests)


def test_a_failure_on_the_way_is_an_error_part(service: ScriptedService) -> None:
    service.engine.fail_after = 3
    told = run_node(SCRIPT, "failure", service.base_url)
    assert told["text"] == "The"
    assert told["errors"] == ["The server failed while working on this request."]


def test_a_refusal_is_parsed_and_not_tried_again(service: ScriptedService) -> None:
    error = run_node(SCRIPT, "refused", service.base_url)
    assert error["isAPICallError"]
    assert (error["statusCode"], error["isRetryable"]) == (400, False)
    assert error["data"]["error"]["param"] == "temperature"
    assert error["message"] == error["data"]["error"]["message"]


def test_a_full_queue_is_tried_again(full_service: ScriptedService) -> None:
    told = run_node(SCRIPT, "overloaded", full_service.base_url)
    assert told["isRetryError"]
    assert told["attempts"] == 2
    assert (told["last"]["statusCode"], told["last"]["isRetryable"]) == (429, True)


def test_an_aborted_stream_ends_its_generation(endless: ScriptedService) -> None:
    assert run_node(SCRIPT, "abort", endless.base_url) == {"last": "abort"}
    wait_until(lambda: endless.generator.num_in_flight == 0)
    (request,) = endless.engine.requests
    assert endless.engine.closed == [request.request_id]
