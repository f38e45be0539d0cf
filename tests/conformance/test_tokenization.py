"""/tokenize and /detokenize: the ids a chat completion would run, and the way back; /version."""

from importlib.metadata import version
from typing import Any

import httpx
import pytest

from tests.conformance.scripted_service import (
    FIRST_BYTE,
    QUERY_NUM,
    TOKEN_IDS,
    ScriptedService,
    api_config,
)
from tests.conformance.wire import CHAT, ask, error_of, image_part, png


def _ids(text: str) -> list[int]:
    return [FIRST_BYTE + byte for byte in text.encode()]


def _tokenize(http: httpx.Client, **body: Any) -> dict[str, Any]:
    reply = http.post("/tokenize", json=body)
    assert reply.status_code == 200, reply.text
    answer: dict[str, Any] = reply.json()
    assert set(answer) == {"count", "max_model_len", "tokens", "token_strs"}
    assert answer["count"] == len(answer["tokens"])
    assert answer["max_model_len"] == 512
    return answer


def test_a_text(http: httpx.Client) -> None:
    assert _tokenize(http, prompt="Hi")["tokens"] == [TOKEN_IDS.bos, *_ids("Hi")]
    assert _tokenize(http, prompt="Hi", add_special_tokens=False)["tokens"] == _ids("Hi")
    assert _tokenize(http, prompt="", add_special_tokens=False)["tokens"] == []
    assert _tokenize(http, prompt="x", return_token_strs=False)["token_strs"] is None


def test_a_part_of_a_character_is_named_by_its_byte(http: httpx.Client) -> None:
    strings = _tokenize(http, prompt="aé ", add_special_tokens=False, return_token_strs=True)["token_strs"]
    assert strings == ["a", "<0xC3>", "<0xA9>", " "]


@pytest.mark.parametrize("content", [["Hello"], [image_part(), "?"], [image_part(png(900, 450)), "?"]])
def test_messages_give_the_prompt_a_completion_runs(
    http: httpx.Client, service: ScriptedService, content: list[Any]
) -> None:
    body = ask(*content)
    answer = _tokenize(http, messages=body["messages"], return_token_strs=True)
    usage = http.post(CHAT, json=body).json()["usage"]
    (request,) = service.engine.requests
    assert answer["tokens"] == request.token_ids.tolist()
    assert answer["count"] == usage["prompt_tokens"]
    assert answer["tokens"].count(TOKEN_IDS.pad) == usage["prompt_tokens_details"]["image_tokens"]
    assert usage["prompt_tokens_details"]["image_tokens"] % QUERY_NUM == 0
    assert len(answer["token_strs"]) == answer["count"]


def test_a_prompt_that_does_not_fit_is_counted(http: httpx.Client) -> None:
    assert _tokenize(http, prompt="x" * 600)["count"] == 601
    assert _tokenize(http, messages=ask("x" * 600)["messages"])["count"] > 600
    for body in ({"prompt": "x" * 200_000}, ask("x" * 200_000)):
        assert error_of(http.post("/tokenize", json=body))["code"] == "context_length_exceeded"


@pytest.mark.parametrize("text", ["", "Hi there", "naïve 你好 🙂\n", "<image></s>"])
def test_there_and_back(http: httpx.Client, text: str) -> None:
    tokens = _tokenize(http, prompt=text, add_special_tokens=False)["tokens"]
    assert http.post("/detokenize", json={"tokens": tokens}).json() == {"prompt": text}


def test_detokenizing_names_specials_and_replaces_half_characters(http: httpx.Client) -> None:
    tokens = [TOKEN_IDS.bos, *_ids("a"), _ids("é")[0]]
    assert http.post("/detokenize", json={"tokens": tokens}).json() == {"prompt": "<1>a\ufffd"}


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": 1}, "prompt"),
        ("/tokenize", {"prompt": "x", "add_special_tokens": 1}, "add_special_tokens"),
        ("/tokenize", {"prompt": "x", "add_generation_prompt": True}, "add_generation_prompt"),
        ("/tokenize", {"prompt": "x", "messages": ask()["messages"]}, "prompt"),
        ("/tokenize", ask(add_generation_prompt=False), "add_generation_prompt"),
        ("/tokenize", ask(add_special_tokens=True), "add_special_tokens"),
        ("/tokenize", ask(continue_final_message=True), "continue_final_message"),
        ("/tokenize", ask(chat_template="{{ x }}"), "chat_template"),
        ("/tokenize", ask(tools=[{"type": "function"}]), "tools[0].function"),
        ("/tokenize", ask(max_tokens=5), "max_tokens"),
        ("/tokenize", {"messages": [{"role": "user"}]}, "messages[0].content"),
        ("/tokenize", ask(image_part(b"noise")), "messages[0].content[0].image_url.url"),
        ("/tokenize", [], None),
        ("/detokenize", {}, "tokens"),
        ("/detokenize", {"tokens": "x"}, "tokens"),
        ("/detokenize", {"tokens": [5, -1]}, "tokens[1]"),
        ("/detokenize", {"tokens": [5, 10_000]}, "tokens[1]"),
        ("/detokenize", {"tokens": [5], "skip_special_tokens": True}, "skip_special_tokens"),
    ],
)
def test_what_cannot_be_taken_is_named(http: httpx.Client, path: str, body: Any, param: str | None) -> None:
    reply = http.post(path, json=body)
    assert (reply.status_code, error_of(reply)["param"]) == (400, param)


def test_other_models_and_too_many_images(http: httpx.Client, service: ScriptedService) -> None:
    for path, body in (("/tokenize", {"prompt": "x"}), ("/detokenize", {"tokens": []})):
        assert http.post(path, json=body | {"model": "gpt-9"}).status_code == 404
        assert http.post(path, json=body | {"model": "openbmb/MiniCPM-V-2"}).status_code == 200
    assert http.post("/tokenize", json=ask(*[image_part()] * 4)).status_code == 413
    assert service.generator.num_in_flight == 0


def test_no_tokenizer_before_the_model_is_there() -> None:
    with ScriptedService(api_config()) as service:
        for path, body in (("/tokenize", {"prompt": "x"}), ("/detokenize", {"tokens": []})):
            assert httpx.post(f"{service.base_url}{path}", json=body).status_code == 503
        assert httpx.get(f"{service.base_url}/version").status_code == 200


def test_the_version(http: httpx.Client) -> None:
    assert http.get("/version").json() == {"version": version("minicpmv-openvino")}


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/health"])
def test_health_can_be_asked_for_its_head(http: httpx.Client, service: ScriptedService, path: str) -> None:
    whole, head = http.get(path), http.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == whole.headers["content-length"]
    service.engine.is_healthy = False
    assert http.head("/health/ready").status_code == 503
