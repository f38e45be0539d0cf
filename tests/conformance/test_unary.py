"""Whole completions by the real openai package and by raw HTTP."""

from collections.abc import AsyncGenerator

import httpx
import pytest
from openai import AsyncOpenAI, OpenAI

from service.engine.token_events import EngineRequest, TokenEvent
from tests.conformance.scripted_service import FIRST_BYTE, MODEL, QUERY_NUM, TOKEN_IDS, ScriptedService
from tests.conformance.wire import CHAT, ask, data_url, events_of, image_part, png

REF = TOKEN_IDS.ref_start


def test_a_text_answer(client: OpenAI) -> None:
    completion = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Hello"}])
    assert completion.id.startswith("chatcmpl-")
    assert completion.object == "chat.completion"
    assert isinstance(completion.created, int)
    assert completion.model == MODEL
    assert completion.system_fingerprint == "fp_test"
    (choice,) = completion.choices
    assert (choice.index, choice.finish_reason, choice.logprobs) == (0, "stop", None)
    assert (choice.message.role, choice.message.content, choice.message.refusal) == (
        "assistant",
        "The answer.",
        None,
    )
    usage = completion.usage
    assert usage is not None
    assert usage.completion_tokens == len("The answer.") + 1  # eos counts
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


async def test_the_async_client(async_client: AsyncOpenAI) -> None:
    completion = await async_client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "Hello"}], max_completion_tokens=3
    )
    assert completion.choices[0].message.content == "The"
    assert completion.choices[0].finish_reason == "length"


def test_images_count_as_prompt_tokens(client: OpenAI, service: ScriptedService) -> None:
    completion = client.chat.completions.create(
        model=MODEL,
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": data_url(png(600, 500)), "detail": "low"}},
                    {"type": "image_url", "image_url": {"url": data_url(png())}},
                    {"type": "text", "text": "Which?"},
                ],
            }
        ],
    )
    assert completion.usage is not None
    details = completion.usage.to_dict()["prompt_tokens_details"]
    assert details == {
        "cached_tokens": 0,
        "image_tokens": 2 * QUERY_NUM,
        "text_tokens": completion.usage.prompt_tokens - 2 * QUERY_NUM,
    }
    (request,) = service.engine.requests
    assert completion.usage.prompt_tokens == len(request.token_ids)
    assert [span.embeddings.shape for span in request.image_spans] == [(QUERY_NUM, 8)] * 2


def test_slices_follow_the_overview(http: httpx.Client, service: ScriptedService) -> None:
    assert http.post(CHAT, json=ask(image_part(png(900, 450), detail="high"), "?")).status_code == 200
    (request,) = service.engine.requests
    assert len(request.image_spans) > 1
    starts = [span.start for span in request.image_spans]
    assert starts == sorted(starts)


def test_an_image_url_may_be_a_bare_string(http: httpx.Client, service: ScriptedService) -> None:
    part = {"type": "image_url", "image_url": data_url(png())}
    assert http.post(CHAT, json=ask(part, "?")).status_code == 200
    assert len(service.engine.requests[0].image_spans) == 1


def test_every_key_of_the_reply(http: httpx.Client) -> None:
    body = http.post(CHAT, json=ask()).json()
    assert list(body) == ["id", "object", "created", "model", "system_fingerprint", "choices", "usage"]
    assert body["choices"][0]["message"] == {"role": "assistant", "content": "The answer.", "refusal": None}
    assert body["choices"][0]["logprobs"] is None


def test_stop_strings_match_across_tokens_and_are_cut(client: OpenAI, service: ScriptedService) -> None:
    completion = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "x"}], stop=["swer", "never"]
    )
    assert completion.choices[0].message.content == "The an"
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage is not None
    assert completion.usage.completion_tokens == len("The answer")
    assert service.engine.closed == [completion.id], "generation stops at the stop string"


def test_parameters_reach_the_engine(client: OpenAI, service: ScriptedService) -> None:
    client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "x"}],
        temperature=0.5,
        top_p=0.9,
        presence_penalty=0.25,
        frequency_penalty=-0.5,
        seed=7,
        max_tokens=9,
        extra_body={
            "top_k": 5,
            "min_p": 0.1,
            "repetition_penalty": 1.2,
            "min_tokens": 2,
            "ignore_eos": True,
            "stop_token_ids": [300],
        },
    )
    sampling = service.engine.requests[0].sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p) == (0.5, 0.9, 5, 0.1)
    assert (sampling.presence_penalty, sampling.frequency_penalty) == (0.25, -0.5)
    assert (sampling.repetition_penalty, sampling.seed, sampling.max_tokens) == (1.2, 7, 9)
    assert (sampling.min_tokens, sampling.ignore_eos, sampling.stop_token_ids) == (2, True, frozenset({300}))


def test_a_developer_is_a_system_and_text_parts_are_a_text(
    http: httpx.Client, service: ScriptedService
) -> None:
    for system, question in (
        ({"role": "system", "content": "Be brief."}, "Hello"),
        ({"role": "developer", "content": "Be brief."}, "Hello"),
        (
            {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]},
            [{"type": "text", "text": "Hello"}],
        ),
    ):
        messages = [system, {"role": "user", "content": question}]
        assert http.post(CHAT, json={"messages": messages}).status_code == 200
    first, *others = (request.token_ids.tolist() for request in service.engine.requests)
    assert others == [first, first]


@pytest.mark.parametrize(
    ("fields", "text", "reason"),
    [
        ({"stop": "swer"}, "The an", "stop"),
        ({"stop": "swer", "include_stop_str_in_output": True}, "The answer", "stop"),
        ({"stop_token_ids": [FIRST_BYTE + ord("w")]}, "The ans", "stop"),
        (
            {"stop_token_ids": [FIRST_BYTE + ord("w")], "include_stop_str_in_output": True},
            "The answ",
            "stop",
        ),
        ({"stop": [" answer.", "The answer!"]}, "The", "stop"),
        ({"max_tokens": 6, "stop": "answer"}, "The an", "length"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_where_an_answer_ends(
    http: httpx.Client, fields: dict[str, object], text: str, reason: str, stream: bool
) -> None:
    reply = http.post(CHAT, json=ask(**fields, stream=stream))
    if stream:
        choices = [chunk["choices"][0] for chunk in events_of(reply.content)[:-1]]
        said = "".join(choice["delta"].get("content", "") for choice in choices)
        assert (said, choices[-1]["finish_reason"]) == (text, reason)
    else:
        (choice,) = reply.json()["choices"]
        assert (choice["message"]["content"], choice["finish_reason"]) == (text, reason)


@pytest.mark.parametrize(("skip", "text"), [(None, "a b"), (True, "a b"), (False, f"a<{REF}> b")])
def test_special_tokens_show_to_who_asks(
    http: httpx.Client,
    service: ScriptedService,
    monkeypatch: pytest.MonkeyPatch,
    skip: bool | None,
    text: str,
) -> None:
    async def stream(request: EngineRequest) -> AsyncGenerator[TokenEvent, None]:
        for token_id in (FIRST_BYTE + ord("a"), REF, FIRST_BYTE + ord(" "), FIRST_BYTE + ord("b")):
            yield TokenEvent(request.request_id, (token_id,))
        yield TokenEvent(request.request_id, (TOKEN_IDS.eos,), "stop", TOKEN_IDS.eos)

    monkeypatch.setattr(service.engine, "stream", stream)
    reply = http.post(CHAT, json=ask(skip_special_tokens=skip))
    assert reply.json()["choices"][0]["message"]["content"] == text


@pytest.mark.parametrize(
    "inert",
    [
        {"metadata": {"a": "b"}},
        {"user": "me", "store": True, "service_tier": "auto"},
        {"safety_identifier": "x", "prompt_cache_key": "y", "prompt_cache_retention": "24h"},
        {"n": 1, "logprobs": False, "tools": [], "logit_bias": {}, "response_format": {"type": "text"}},
        {
            "priority": 0,
            "top_logprobs": 0,
            "use_beam_search": False,
            "length_penalty": 1.0,
            "verbosity": "medium",
        },
        {"tool_choice": "none", "modalities": ["text"], "best_of": 1, "parallel_tool_calls": True},
        {"temperature": None, "stop": None, "tools": None, "stream": None, "model": None},
        {"stream_options": {"include_usage": True}},
    ],
)
def test_inert_fields_and_no_op_values_are_tolerated(http: httpx.Client, inert: dict[str, object]) -> None:
    assert http.post(CHAT, json=ask(**inert)).status_code == 200


def test_a_client_that_accepts_only_json_or_nothing_like_it_is_served(http: httpx.Client) -> None:
    for accept in ("application/json", "text/html", "*/*"):
        for stream in (False, True):
            reply = http.post(CHAT, json=ask(stream=stream), headers={"accept": accept})
            assert reply.status_code == 200
