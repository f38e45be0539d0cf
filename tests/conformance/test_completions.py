"""/v1/completions: prompts of every form, choices in their order, legacy log-probabilities, echo, streams."""

from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from openai import APIError, OpenAI
from openai.types import Completion as SdkCompletion

from tests.conformance.scripted_service import (
    FIRST_BYTE,
    MODEL,
    TOKEN_IDS,
    VOCAB_SIZE,
    ScriptedService,
    api_config,
    wait_until,
)
from tests.conformance.wire import CHAT, ask, error_of, events_of

PATH = "/v1/completions"
USAGE: dict[str, Any] = {"include_usage": True}


def _ids(text: str) -> list[int]:
    return [FIRST_BYTE + byte for byte in text.encode()]


def _prompts(service: ScriptedService) -> list[list[int]]:
    return [request.token_ids.tolist() for request in service.engine.requests]


def _streamed(client: OpenAI, num_choices: int = 1, **fields: Any) -> tuple[list[str], list[str | None]]:
    """(texts, finish reasons) of the choices."""
    texts = [""] * num_choices
    reasons: list[str | None] = [None] * num_choices
    for chunk in client.completions.create(model=MODEL, stream=True, **fields):
        for choice in chunk.choices:
            assert reasons[choice.index] is None, "nothing comes behind a finish reason"
            texts[choice.index] += choice.text
            reasons[choice.index] = choice.finish_reason
    return texts, reasons


def test_a_completion(client: OpenAI, service: ScriptedService) -> None:
    completion = client.completions.create(model=MODEL, prompt="Once")
    (choice,) = completion.choices
    assert (choice.text, choice.index, choice.finish_reason, choice.logprobs) == (
        "The answer.",
        0,
        "stop",
        None,
    )
    assert completion.id.startswith("cmpl-")
    assert (completion.object, completion.model) == ("text_completion", MODEL)
    assert completion.system_fingerprint == "fp_test"
    assert completion.usage is not None
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (5, 12)
    assert _prompts(service) == [[TOKEN_IDS.bos, *_ids("Once")]]
    assert service.engine.requests[0].sampling.max_tokens == 16


def test_the_reply_is_openais_shape(http: httpx.Client) -> None:
    body = http.post(PATH, json={"prompt": ["a", "b"], "n": 2, "logprobs": 1}).json()
    assert set(body) == {"id", "object", "created", "model", "system_fingerprint", "choices", "usage"}
    assert all(set(choice) == {"index", "text", "logprobs", "finish_reason"} for choice in body["choices"])
    SdkCompletion.model_validate(body)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("Hi", [[1, *_ids("Hi")]]),
        ("", [[1]]),
        (["Hi", "ho"], [[1, *_ids("Hi")], [1, *_ids("ho")]]),
        ([300, 301], [[300, 301]]),
        ([1, 300], [[1, 300]]),
        ([[300], [1, 301, 302]], [[300], [1, 301, 302]]),
        ("<image></s><AI>", [[1, *_ids("<image></s><AI>")]]),
    ],
)
def test_prompts_of_every_form(
    http: httpx.Client, service: ScriptedService, prompt: Any, expected: list[list[int]]
) -> None:
    reply = http.post(PATH, json={"prompt": prompt})
    assert reply.status_code == 200, reply.text
    assert sorted(_prompts(service)) == sorted(expected)
    assert reply.json()["usage"]["prompt_tokens"] == sum(map(len, expected))


def test_a_text_has_the_ids_that_tokenize_gives(http: httpx.Client, service: ScriptedService) -> None:
    ids = http.post("/tokenize", json={"prompt": "naïve 你好"}).json()["tokens"]
    for prompt in ("naïve 你好", ids):
        assert http.post(PATH, json={"prompt": prompt}).status_code == 200
    assert _prompts(service) == [ids, ids]


def test_choices_come_prompt_by_prompt(client: OpenAI) -> None:
    fields: dict[str, Any] = {"prompt": ["a", "bb", "ccc"], "n": 2, "echo": True}
    completion = client.completions.create(model=MODEL, **fields)
    assert [choice.index for choice in completion.choices] == list(range(6))
    texts = [choice.text for choice in completion.choices]
    assert texts == [
        prompt + answer for prompt in ("a", "bb", "ccc") for answer in ("The answer.", "The answer.1")
    ]
    assert completion.usage is not None
    assert completion.usage.prompt_tokens == 2 + 3 + 4
    assert completion.usage.completion_tokens == 3 * (12 + 13)
    assert completion.usage.total_tokens == 9 + 75
    assert _streamed(client, 6, **fields) == (texts, ["stop"] * 6)


def test_every_prompt_has_a_place_and_an_id_of_its_own(http: httpx.Client, service: ScriptedService) -> None:
    reply = http.post(PATH, json={"prompt": ["a", "b"]}).json()
    ids = {request.request_id for request in service.engine.requests}
    assert ids == {reply["id"], f"{reply['id']}-1"}
    assert service.generator.num_in_flight == 0


@pytest.mark.parametrize("answer", [" \n two  words \n ", "naïve 你好 🙂", "x", ""])
def test_prompt_and_text_join(client: OpenAI, service: ScriptedService, answer: str) -> None:
    """Unlike a chat's answer, nothing is stripped."""
    service.engine.answer = answer
    completion = client.completions.create(model=MODEL, prompt="It was", max_tokens=100)
    assert completion.choices[0].text == answer
    assert _streamed(client, prompt="It was", max_tokens=100) == ([answer], ["stop"])


def test_the_order_of_chunks(http: httpx.Client, service: ScriptedService) -> None:
    service.engine.answer = "Hi"
    reply = http.post(PATH, json={"prompt": "x", "stream": True})
    assert reply.headers["content-type"].split(";")[0] == "text/event-stream"
    *chunks, done = events_of(reply.content)
    assert done == "[DONE]"
    head = {
        "id": chunks[0]["id"],
        "object": "text_completion",
        "created": chunks[0]["created"],
        "model": MODEL,
        "system_fingerprint": "fp_test",
    }
    assert chunks == [
        head | {"choices": [{"index": 0, "text": text, "logprobs": None, "finish_reason": reason}]}
        for text, reason in (("H", None), ("i", None), ("", "stop"))
    ]


def test_the_usage_of_a_stream(http: httpx.Client) -> None:
    body = {"prompt": ["a", "b"], "n": 2}
    *chunks, last, _ = events_of(
        http.post(PATH, json=body | {"stream": True, "stream_options": USAGE}).content
    )
    assert all(chunk["usage"] is None for chunk in chunks)
    assert last["choices"] == []
    assert last["usage"] == http.post(PATH, json=body).json()["usage"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (PATH, {"prompt": ["a", "b"], "n": 2}),
        (PATH, {"prompt": "a", "echo": True}),
        (CHAT, ask("x", n=2)),
        (CHAT, ask("x", logprobs=True)),
    ],
)
def test_usage_that_runs_along(http: httpx.Client, path: str, body: dict[str, Any]) -> None:
    options = USAGE | {"continuous_usage_stats": True}
    *chunks, last, _ = events_of(
        http.post(path, json=body | {"stream": True, "stream_options": options}).content
    )
    counts = [chunk["usage"]["completion_tokens"] for chunk in chunks]
    assert counts[0] == 1
    assert counts == sorted(counts)
    assert counts[-1] == last["usage"]["completion_tokens"]
    assert last["usage"] == http.post(path, json=body).json()["usage"]
    for chunk in chunks:
        usage = chunk["usage"]
        assert usage["prompt_tokens"] == last["usage"]["prompt_tokens"]
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


@pytest.mark.parametrize(("path", "body"), [(PATH, {"prompt": "x"}), (CHAT, ask("x"))])
def test_usage_that_runs_along_needs_usage(http: httpx.Client, path: str, body: dict[str, Any]) -> None:
    for options in (
        {"continuous_usage_stats": True},
        {"continuous_usage_stats": True, "include_usage": False},
    ):
        reply = http.post(path, json=body | {"stream": True, "stream_options": options})
        assert (reply.status_code, error_of(reply)["param"]) == (400, "stream_options.continuous_usage_stats")
    no_op = {"stream": True, "stream_options": {"continuous_usage_stats": False}}
    assert b"usage" not in http.post(path, json=body | no_op).content


def test_an_echo(client: OpenAI) -> None:
    for prompt, shown in (
        ("<image> 你 ", "<image> 你 "),
        ([1, *_ids("Hi"), 2], "Hi<2>"),
        ([300], "d"),
        ("", ""),
    ):
        completion = client.completions.create(model=MODEL, prompt=prompt, echo=True)
        assert completion.choices[0].text == f"{shown}The answer."
        assert _streamed(client, prompt=prompt, echo=True) == ([f"{shown}The answer."], ["stop"])


def test_stop_strings_do_not_look_at_the_echo(client: OpenAI) -> None:
    completion = client.completions.create(model=MODEL, prompt="The answer", echo=True, stop=" answer")
    assert (completion.choices[0].text, completion.choices[0].finish_reason) == ("The answerThe", "stop")


@pytest.mark.parametrize("answer", ["The answer.", "naïve 你好 🙂!", " \n x ", ""])
def test_log_probabilities_rebuild_the_text(client: OpenAI, service: ScriptedService, answer: str) -> None:
    service.engine.answer = answer
    completion = client.completions.create(model=MODEL, prompt="x", logprobs=2, max_tokens=100)
    (choice,) = completion.choices
    told = choice.logprobs
    assert told is not None
    assert told.tokens is not None
    assert told.text_offset is not None
    assert told.top_logprobs is not None
    *tokens, last = told.tokens
    assert last == f"<{TOKEN_IDS.eos}>"
    data = b"".join(_bytes_of(token) for token in tokens)
    assert data.decode() == choice.text == answer
    before = [data[:size].decode("utf-8", "ignore") for size in range(len(data) + 1)]
    assert told.text_offset == [len(text) for text in before]
    assert told.token_logprobs == [float(-byte) for byte in data] + [float(FIRST_BYTE - TOKEN_IDS.eos)]
    for token, logprob, top in zip(told.tokens, told.token_logprobs, told.top_logprobs, strict=True):
        assert top == {"\x00": 0.0, "\x01": -1.0, token: logprob}
    assert completion.usage is not None
    assert len(told.tokens) == completion.usage.completion_tokens


def _bytes_of(token: str) -> bytes:
    """OpenAI's notation of a part of a character, back."""
    name, mark, digits = token.partition("bytes:")
    return name.encode() if not mark else bytes.fromhex(digits.replace("\\x", ""))


@pytest.mark.parametrize("answer", ["The answer.", "naïve 你好 🙂", ""])
def test_streamed_log_probabilities_are_the_unary_ones(
    client: OpenAI, service: ScriptedService, answer: str
) -> None:
    service.engine.answer = answer
    fields: dict[str, Any] = {"prompt": ["a", "b"], "n": 2, "logprobs": 1, "max_tokens": 100}
    unary = client.completions.create(model=MODEL, **fields)
    names = ("tokens", "token_logprobs", "top_logprobs", "text_offset")
    joined: list[dict[str, list[Any]]] = [{name: [] for name in names} for _ in range(4)]
    for chunk in client.completions.create(model=MODEL, stream=True, **fields):
        (choice,) = chunk.choices
        if choice.logprobs is not None:
            for name in names:
                joined[choice.index][name] += getattr(choice.logprobs, name)
    assert joined == [choice.logprobs.model_dump() for choice in unary.choices if choice.logprobs is not None]


def test_no_likeliest_tokens_leave_the_chosen_one(client: OpenAI) -> None:
    (choice,) = client.completions.create(model=MODEL, prompt="x", logprobs=0, max_tokens=1).choices
    assert choice.logprobs is not None
    assert choice.logprobs.top_logprobs == [{"T": -84.0}]


def test_tokens_of_a_stop_string_lie_behind_the_text(client: OpenAI) -> None:
    completion = client.completions.create(model=MODEL, prompt="x", logprobs=0, stop="swer")
    (choice,) = completion.choices
    assert choice.text == "The an"
    assert choice.logprobs is not None
    assert choice.logprobs.tokens == [*"The answer"]
    assert choice.logprobs.text_offset == list(range(10))


def test_sampling_is_read_as_in_a_chat(http: httpx.Client, service: ScriptedService) -> None:
    fields: dict[str, Any] = {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 7,
        "min_p": 0.1,
        "repetition_penalty": 1.2,
        "presence_penalty": 0.5,
        "frequency_penalty": -0.5,
        "seed": 7,
        "min_tokens": 2,
        "ignore_eos": True,
        "stop_token_ids": [300],
        "n": 2,
        "max_tokens": 9,
        "cache_salt": "me",
        "user": "me",
    }
    beams: dict[str, Any] = {"use_beam_search": True, "best_of": 3, "length_penalty": 0.5, "max_tokens": 5}
    for each in (fields, beams, {"max_tokens": 5}):
        assert http.post(PATH, json=each | {"prompt": "x"}).status_code == 200
        assert http.post(CHAT, json=ask(**each)).status_code == 200
        raw, chat = service.engine.requests[-2:]
        assert raw.sampling == chat.sampling
        assert raw.cache_salt == chat.cache_salt


def test_what_decides_over_the_text_is_read_as_in_a_chat(
    http: httpx.Client, service: ScriptedService
) -> None:
    service.engine.answer = "a!b"
    for fields, text in (
        ({"stop": "!"}, "a"),
        ({"stop": ["!"], "include_stop_str_in_output": True}, "a!"),
        ({"stop_token_ids": _ids("!"), "include_stop_str_in_output": True}, "a!"),
    ):
        assert http.post(PATH, json={"prompt": "x", **fields}).json()["choices"][0]["text"] == text


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": 5}, "prompt"),
        ({"prompt": [True]}, "prompt"),
        ({"prompt": [[]]}, "prompt[0]"),
        ({"prompt": ["a", 5]}, "prompt[1]"),
        ({"prompt": [300, "a"]}, "prompt[1]"),
        ({"prompt": [[300], "a"]}, "prompt[1]"),
        ({"prompt": [[300], [-1]]}, "prompt[1][0]"),
        ({"prompt": [300, VOCAB_SIZE]}, "prompt[1]"),
        ({"prompt": [[300], [300, VOCAB_SIZE]]}, "prompt[1][1]"),
        *(
            ({"prompt": [1, getattr(TOKEN_IDS, name)]}, "prompt[1]")
            for name in ("pad", "image_start", "image_end", "slice_start", "slice_end")
        ),
        ({"prompt": ["x"] * 33}, "prompt"),
        ({"prompt": ["x"] * 9}, "prompt"),  # more than this server has places
        ({"suffix": "x"}, "suffix"),
        ({"echo": True, "logprobs": 0}, "echo"),
        ({"logprobs": 6}, "logprobs"),
        ({"logprobs": True}, "logprobs"),
        ({"logprobs": 1, "num_beams": 2}, "logprobs"),
        ({"logprobs": 0, "num_beams": 2}, "logprobs"),
        ({"logit_bias": {"456": 1}}, "logit_bias"),
        ({"response_format": {"type": "json_object"}, "num_beams": 2}, "response_format"),
        ({"structured_outputs": {}}, "structured_outputs"),
        ({"priority": 1.5}, "priority"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": 5}, "max_completion_tokens"),
        ({"best_of": 2}, "best_of"),
        ({"n": 17}, "n"),
        ({"n": 9}, "n"),
        ({"temperature": 3}, "temperature"),
        ({"stop_token_ids": [VOCAB_SIZE]}, "stop_token_ids"),
        ({"timings": True, "stream": True}, "timings"),
        ({"messages": []}, "messages"),
        ({"grounding": True}, "grounding"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_what_cannot_be_done_is_named(
    http: httpx.Client, service: ScriptedService, fields: dict[str, Any], param: str
) -> None:
    for stream in (False, True):
        reply = http.post(PATH, json={"prompt": "x", "stream": stream} | fields)
        error = error_of(reply)
        assert (reply.status_code, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert not service.engine.requests
    assert service.generator.num_in_flight == 0


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": "x" * 600}, "prompt"),
        ({"prompt": ["x", "x" * 600]}, "prompt"),
        ({"prompt": [300] * 600}, "prompt"),
        ({"prompt": "x", "max_tokens": 511}, "prompt"),
        ({"prompt": [[300], [300] * 600]}, "prompt[1]"),
        ({"prompt": ["x", "x" * 10_000]}, "prompt[1]"),
    ],
)
def test_what_does_not_fit_is_refused_whole(
    http: httpx.Client, service: ScriptedService, fields: dict[str, Any], param: str
) -> None:
    error = error_of(http.post(PATH, json=fields))
    assert (error["code"], error["param"]) == ("context_length_exceeded", param)
    assert not service.engine.requests
    assert service.generator.num_in_flight == 0


@pytest.mark.parametrize(
    "inert",
    [
        {"suffix": None, "echo": False, "best_of": 1, "logit_bias": {}, "user": "me", "priority": 0},
        {"suffix": "", "logprobs": None, "response_format": {"type": "text"}, "stream": None, "model": None},
    ],
)
def test_what_changes_nothing_is_accepted(http: httpx.Client, inert: dict[str, Any]) -> None:
    assert http.post(PATH, json={"prompt": "x"} | inert).status_code == 200


def test_places_are_taken_together_or_not_at_all(http: httpx.Client, service: ScriptedService) -> None:
    service.engine.endless, service.engine.pause_s, service.engine.max_model_len = True, 0.005, 100_000
    body = {"prompt": ["a"] * 5, "max_tokens": 10_000, "stream": True}
    with httpx.stream("POST", f"{service.base_url}{PATH}", json=body, timeout=30) as running:
        pieces = running.iter_raw()  # must live on: its end closes the connection
        next(pieces)
        assert service.generator.num_in_flight == 5
        reply = http.post(PATH, json={"prompt": ["b"] * 4})
        assert (reply.status_code, error_of(reply)["code"]) == (429, "rate_limit_exceeded")
        assert service.generator.num_in_flight == 5
        service.engine.endless = False
        assert http.post(PATH, json={"prompt": ["b"] * 3}).status_code == 200
    wait_until(lambda: service.generator.num_in_flight == 0)


@pytest.fixture
def endless(service: ScriptedService) -> ScriptedService:
    service.engine.endless, service.engine.pause_s = True, 0.005
    service.engine.max_model_len = 1_000_000
    return service


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("prompt", ["a", ["a", "b", "c"]])
def test_leaving_ends_every_prompt(endless: ScriptedService, prompt: Any, stream: bool) -> None:
    body = {"prompt": prompt, "n": 2, "max_tokens": 100_000, "stream": stream}
    if stream:
        with httpx.stream("POST", f"{endless.base_url}{PATH}", json=body, timeout=30) as reply:
            next(reply.iter_raw())
    else:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{endless.base_url}{PATH}", json=body, timeout=0.3)
    wait_until(lambda: endless.generator.num_in_flight == 0)
    assert len(endless.engine.requests) == len(prompt)
    assert sorted(endless.engine.closed) == sorted(one.request_id for one in endless.engine.requests)


def test_a_stop_string_ends_one_choice_of_one_prompt(http: httpx.Client, service: ScriptedService) -> None:
    service.engine.answer, service.engine.endless = "ab", True
    body = {"prompt": ["x", "y"], "n": 2, "stop": "ab1a", "max_tokens": 40}
    choices = http.post(PATH, json=body).json()["choices"]
    assert [choice["finish_reason"] for choice in choices] == ["length", "stop"] * 2
    assert service.engine.closed_choices == [1, 1]


def test_a_failure_ends_all_prompts(client: OpenAI, service: ScriptedService) -> None:
    service.engine.fail_after = 3
    with pytest.raises(openai.InternalServerError):
        client.completions.create(model=MODEL, prompt=["a", "b"])
    with pytest.raises(APIError, match="The server failed"):
        list(client.completions.create(model=MODEL, prompt=["a", "b"], stream=True))
    wait_until(lambda: service.generator.num_in_flight == 0)


def test_a_failure_on_the_way_is_told_and_ends_the_stream(
    http: httpx.Client, service: ScriptedService
) -> None:
    service.engine.fail_after = 3
    *chunks, error, done = events_of(http.post(PATH, json={"prompt": "x", "stream": True}).content)
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == "The"
    assert error["error"]["message"] == "The server failed while working on this request."
    assert done == "[DONE]"


def test_requests_under_way_are_told_when_the_service_ends() -> None:
    with ScriptedService() as service:
        service.open()
        service.engine.endless, service.engine.pause_s = True, 0.005
        body = {"prompt": ["a", "b"], "stream": True, "max_tokens": 400}
        with httpx.stream("POST", f"{service.base_url}{PATH}", json=body, timeout=30) as reply:
            received = bytearray()
            for piece in reply.iter_raw():
                received += piece
                if b'"text":"T"' in received and service.availability.state == "ready":
                    service.availability.begin_drain()
                    service.availability.end_running()
        error, done = events_of(bytes(received))[-2:]
        assert done == "[DONE]"
        assert error["error"]["code"] == "model_not_ready"
        wait_until(lambda: service.generator.num_in_flight == 0)


@pytest.fixture(scope="module")
def locked() -> Iterator[ScriptedService]:
    with ScriptedService(api_config(api_keys=("secret",))) as running:
        running.open()
        yield running


def test_a_key_is_needed_where_there_are_keys(locked: ScriptedService) -> None:
    for key, status in ((None, 401), ("wrong", 401), ("secret", 200)):
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        reply = httpx.post(f"{locked.base_url}{PATH}", json={"prompt": "x"}, headers=headers, timeout=30)
        assert reply.status_code == status


def test_other_models_and_methods(client: OpenAI, http: httpx.Client) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.completions.create(model="gpt-9", prompt="x")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    assert http.get(PATH).status_code == 405


def test_nothing_before_the_model_is_there() -> None:
    with ScriptedService() as service:
        assert httpx.post(f"{service.base_url}{PATH}", json={"prompt": "x"}).status_code == 503
