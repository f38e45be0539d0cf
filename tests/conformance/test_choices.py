"""Several choices and log-probabilities, whole and streamed, as OpenAI's client reads them."""

from contextlib import suppress
from typing import Any

import httpx
import pytest
from openai import OpenAI

from service.engine.engine import Engine, EngineConfig
from tests.conformance.scripted_service import MODEL, TOKEN_IDS, VOCAB_SIZE, ScriptedService, wait_until
from tests.conformance.wire import CHAT, ask, events_of
from tests.unit.engine.scripted_model import ScriptedModel

ASK: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "x"}]}


def test_choices_of_a_unary_answer(client: OpenAI) -> None:
    completion = client.chat.completions.create(**ASK, n=3, seed=1)
    assert [choice.index for choice in completion.choices] == [0, 1, 2]
    texts = [choice.message.content for choice in completion.choices]
    assert texts == ["The answer.", "The answer.1", "The answer.2"]
    assert {choice.finish_reason for choice in completion.choices} == {"stop"}
    assert all(choice.logprobs is None for choice in completion.choices)
    one = client.chat.completions.create(**ASK, seed=1)
    assert one.choices[0].message.content == texts[0]
    assert completion.usage is not None
    assert one.usage is not None
    assert completion.usage.prompt_tokens == one.usage.prompt_tokens
    assert completion.usage.completion_tokens == 12 + 13 + 13


def test_streamed_choices_join_to_the_unary_ones(client: OpenAI) -> None:
    unary = client.chat.completions.create(**ASK, n=3)
    stream = client.chat.completions.create(**ASK, n=3, stream=True, stream_options={"include_usage": True})
    texts = ["", "", ""]
    reasons: list[list[str]] = [[], [], []]
    order: list[int] = []
    for chunk in stream:
        if not chunk.choices:
            assert chunk.usage == unary.usage
            continue
        (choice,) = chunk.choices
        if choice.index not in order:
            assert (choice.delta.role, choice.delta.content) == ("assistant", "")
            order.append(choice.index)
        else:
            assert choice.delta.role is None
        assert not reasons[choice.index], "nothing comes behind a finish reason"
        texts[choice.index] += choice.delta.content or ""
        if choice.finish_reason is not None:
            assert choice.delta.content is None
            reasons[choice.index].append(choice.finish_reason)
    assert order == [0, 1, 2]
    assert texts == [choice.message.content for choice in unary.choices]
    assert reasons == [["stop"]] * 3


def test_choices_are_interleaved(http: httpx.Client) -> None:
    *chunks, done = events_of(http.post(CHAT, json=ask(stream=True, n=2)).content)
    assert done == "[DONE]"
    indices = [chunk["choices"][0]["index"] for chunk in chunks]
    assert indices[:4] == [0, 0, 1, 1]  # role and first character of each
    assert indices[4:8] == [0, 1, 0, 1]
    assert all(len(chunk["choices"]) == 1 for chunk in chunks)


def test_a_stop_string_ends_one_choice_and_the_engine_hears_of_it(
    client: OpenAI, service: ScriptedService
) -> None:
    service.engine.answer, service.engine.endless = "ab", True
    completion = client.chat.completions.create(**ASK, n=3, stop="ab1a", max_tokens=40)
    assert [choice.finish_reason for choice in completion.choices] == ["length", "stop", "length"]
    assert completion.choices[1].message.content == ""
    assert completion.choices[0].message.content == "ab" * 20
    assert service.engine.closed_choices == [1]
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 40 + 4 + 40


def test_when_stop_strings_end_all_choices_the_request_is_closed(
    client: OpenAI, service: ScriptedService
) -> None:
    service.engine.endless = True
    completion = client.chat.completions.create(**ASK, n=2, stop="swer", max_tokens=100)
    assert [choice.message.content for choice in completion.choices] == ["The an"] * 2
    assert service.engine.closed == [completion.id]


def test_beams_and_their_names_reach_the_engine(client: OpenAI, service: ScriptedService) -> None:
    extra = {"num_beams": 4, "length_penalty": 0.5, "early_stopping": "never"}
    completion = client.chat.completions.create(**ASK, n=2, extra_body=extra)
    assert len(completion.choices) == 2
    client.chat.completions.create(**ASK, extra_body={"use_beam_search": True, "best_of": 3})
    first, second = (request.sampling for request in service.engine.requests)
    assert first.n == 2
    assert first.temperature == second.temperature == 0
    assert first.beam_search is not None
    assert (first.beam_search.num_beams, first.beam_search.length_penalty) == (4, 0.5)
    assert first.beam_search.early_stopping == "never"
    assert second.beam_search is not None
    assert (second.n, second.beam_search.num_beams) == (1, 3)


def test_logprobs_of_a_unary_answer(client: OpenAI) -> None:
    completion = client.chat.completions.create(**ASK, logprobs=True, top_logprobs=3)
    (choice,) = completion.choices
    assert choice.logprobs is not None
    content = choice.logprobs.content
    assert content is not None
    assert [one.token for one in content] == [*"The answer.", "<2>"]
    assert [one.logprob for one in content[:3]] == [-84.0, -104.0, -101.0]
    assert all(len(one.top_logprobs) == 3 for one in content)
    assert [top.bytes for top in content[0].top_logprobs] == [[0], [1], [2]]
    shown = b"".join(bytes(one.bytes) for one in content if one.bytes is not None)
    assert shown.decode() == choice.message.content
    assert completion.usage is not None
    assert len(content) == completion.usage.completion_tokens
    assert content[-1].bytes is None  # eos has no text
    assert choice.logprobs.refusal is None


def test_logprobs_without_alternatives(client: OpenAI) -> None:
    content = client.chat.completions.create(**ASK, logprobs=True).choices[0].logprobs
    assert content is not None
    assert content.content is not None
    assert all(one.top_logprobs == [] for one in content.content)


@pytest.mark.parametrize("answer", ["The answer.", "naïve 你好 🙂", " \n spaced  out \n ", ""])
def test_streamed_logprobs_are_the_unary_ones(client: OpenAI, service: ScriptedService, answer: str) -> None:
    service.engine.answer = answer
    options: dict[str, Any] = {"n": 2, "logprobs": True, "top_logprobs": 1}
    unary = client.chat.completions.create(**ASK, **options)
    streamed: list[list[Any]] = [[], []]
    for chunk in client.chat.completions.create(**ASK, **options, stream=True):
        (choice,) = chunk.choices
        if choice.logprobs is not None:
            assert choice.finish_reason is None
            streamed[choice.index] += choice.logprobs.content or []
    for choice, content in zip(unary.choices, streamed, strict=True):
        assert choice.logprobs is not None
        assert choice.logprobs.content == content
        text = f"{answer}{choice.index or ''}"
        assert b"".join(bytes(one.bytes or []) for one in content).decode() == text
        assert choice.message.content == text.strip()


def test_logprobs_keep_what_a_stop_string_cut_away(client: OpenAI) -> None:
    completion = client.chat.completions.create(**ASK, logprobs=True, stop="swer")
    (choice,) = completion.choices
    assert choice.message.content == "The an"
    assert choice.logprobs is not None
    assert [one.token for one in choice.logprobs.content or []] == [*"The answer"]


def test_who_asks_for_no_logprobs_gets_and_costs_none(http: httpx.Client, service: ScriptedService) -> None:
    reply = http.post(CHAT, json=ask(n=2)).json()
    assert [choice["logprobs"] for choice in reply["choices"]] == [None, None]
    chunks = events_of(http.post(CHAT, json=ask(stream=True)).content)[:-1]
    assert all(chunk["choices"][0]["logprobs"] is None for chunk in chunks)
    assert all(request.sampling.logprobs is None for request in service.engine.requests)


def test_a_failure_of_the_engine_ends_all_choices(http: httpx.Client, service: ScriptedService) -> None:
    service.engine.fail_after = 3
    assert http.post(CHAT, json=ask(n=2)).status_code == 500
    *_, error, done = events_of(http.post(CHAT, json=ask(n=2, stream=True)).content)
    assert done == "[DONE]"
    assert "error" in error


@pytest.mark.parametrize("stream", [False, True])
def test_leaving_ends_every_choice(service: ScriptedService, stream: bool) -> None:
    service.engine.endless, service.engine.pause_s = True, 0.005
    service.engine.max_model_len = 1_000_000
    body = ask(stream=stream, max_tokens=10_000, n=3)
    if stream:
        with httpx.stream("POST", f"{service.base_url}{CHAT}", json=body, timeout=30) as reply:
            next(reply.iter_raw())
    else:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{service.base_url}{CHAT}", json=body, timeout=0.3)
    wait_until(lambda: service.generator.num_in_flight == 0)
    (request,) = service.engine.requests
    assert service.engine.closed == [request.request_id]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("width", [{"n": 3}, {"num_beams": 3}], ids=["choices", "beams"])
def test_leaving_frees_every_block_of_the_real_engine(width: dict[str, int], stream: bool) -> None:
    config = EngineConfig(
        max_position_embeddings=20_000,
        eos_token_id=TOKEN_IDS.eos,
        kv_cache_bytes=20_000 * ScriptedModel.block_bytes,
        max_num_seqs=4,
        max_num_batched_tokens=16,
    )
    engine = Engine(ScriptedModel(VOCAB_SIZE), config)
    engine.start()
    try:
        with ScriptedService(token_engine=engine) as service:
            service.open()
            body = ask(stream=stream, max_tokens=15_000, **width)
            url = f"{service.base_url}{CHAT}"
            # Choices are read once, the others bring nothing before the client loses patience.
            with suppress(httpx.ReadTimeout), httpx.stream("POST", url, json=body, timeout=0.5) as reply:
                next(reply.iter_raw())
            wait_until(lambda: service.generator.num_in_flight == 0)
            wait_until(lambda: engine.stats().used_blocks == engine.stats().running == 0)
            assert engine.is_healthy
    finally:
        engine.stop()
