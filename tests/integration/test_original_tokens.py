"""Over HTTP, at f32 and temperature 0, the service answers with the original code's tokens."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from openai import OpenAI

from tests.live_server import LiveServer
from tests.stub_tokenizer import piece_of

MAX_TOKENS = 24
EOS = 2


@pytest.fixture(scope="module")
def client(golden_artifacts: Path) -> Iterator[OpenAI]:
    exact = LiveServer(
        model_dir=golden_artifacts, weights="fp16", inference_precision="f32", kv_cache_precision="f32"
    )
    with exact as server, OpenAI(base_url=f"{server.base_url}/v1", api_key="none", max_retries=0) as client:
        yield client


def _messages(chat: dict[str, Any], goldens: Path) -> list[Any]:
    messages = [dict(message) for message in chat["msgs"]]
    if chat["image"]:
        encoded = base64.b64encode((goldens / "images" / chat["image"]).read_bytes()).decode()
        image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{encoded}"}}
        messages[0]["content"] = [image, {"type": "text", "text": messages[0]["content"]}]
    return messages


def _text_of(token_ids: list[int]) -> str:
    """What the stub tokenizer's pieces spell, shown as the original shows answers."""
    shown = [token_id for token_id in token_ids if token_id not in {0, EOS}]
    assert not any(101 <= token_id <= 112 for token_id in shown), "a mark would need more than pieces"
    return "".join(piece_of(token_id) for token_id in shown).strip()


def _greedy_runs(goldens: Path) -> dict[str, list[int]]:
    runs = json.loads((goldens / "generate.json").read_text(encoding="utf-8"))["runs"]
    return {run["name"]: run["new_ids"] for run in runs}


@pytest.mark.parametrize("name", ["c0_noslice", "c1_slice2", "c2_slice_tall"])
@pytest.mark.parametrize("repetition_penalty", [1.0, 1.05, 1.2])
def test_image_chats_give_the_originals_greedy_tokens(
    client: OpenAI, goldens: Path, golden_chats: list[dict[str, Any]], name: str, repetition_penalty: float
) -> None:
    chat = next(chat for chat in golden_chats if chat["name"] == name)
    suffix = "" if repetition_penalty == 1.0 else f"_rep{repetition_penalty}"
    expected = _greedy_runs(goldens)[f"{name}_greedy{suffix}"]
    answer = client.chat.completions.create(
        model="",
        messages=_messages(chat, goldens),
        temperature=0,
        max_tokens=MAX_TOKENS,
        extra_body={"repetition_penalty": repetition_penalty},
    )
    assert answer.choices[0].message.content == _text_of(expected)
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == chat["n_tokens"]
    assert answer.usage.completion_tokens == len(expected)


@pytest.mark.parametrize("name", ["c0_noslice", "c1_slice2", "c2_slice_tall", "c3_text", "c4_multiturn"])
def test_every_chat_starts_with_the_originals_token(
    client: OpenAI, goldens: Path, golden_chats: list[dict[str, Any]], name: str
) -> None:
    chat = next(chat for chat in golden_chats if chat["name"] == name)
    with np.load(goldens / "chat.npz") as arrays:
        first = int(arrays[f"{name}_argmax_all"].reshape(-1)[-1])
    answer = client.chat.completions.create(
        model="", messages=_messages(chat, goldens), temperature=0, max_tokens=1
    )
    assert answer.choices[0].message.content == _text_of([first])
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == chat["n_tokens"]


def _beam_runs(goldens: Path, name: str) -> list[dict[str, Any]]:
    runs = json.loads((goldens / "generate.json").read_text(encoding="utf-8"))["runs"]
    return [run for run in runs if run["name"].startswith(f"{name}_beam")]


@pytest.mark.parametrize("name", ["c0_noslice", "c1_slice2", "c2_slice_tall"])
@pytest.mark.parametrize("spelling", ["num_beams", "use_beam_search"])
def test_image_chats_give_the_originals_beam_search_tokens(
    client: OpenAI, goldens: Path, golden_chats: list[dict[str, Any]], name: str, spelling: str
) -> None:
    chat = next(chat for chat in golden_chats if chat["name"] == name)
    runs = _beam_runs(goldens, name)
    assert len(runs) >= 14
    for run in runs:
        kwargs, expected = run["kwargs"], run["new_ids"]
        end = kwargs["eos_token_id"]
        width = {"num_beams": 3} if spelling == "num_beams" else {"use_beam_search": True, "best_of": 3}
        answer = client.chat.completions.create(
            model="",
            messages=_messages(chat, goldens),
            max_tokens=MAX_TOKENS,
            extra_body=width
            | {
                "repetition_penalty": kwargs.get("repetition_penalty", 1.0),
                "ignore_eos": end != EOS,
                "stop_token_ids": [end],
            },
        )
        ended = expected[-1] == end
        assert answer.choices[0].message.content == _text_of(expected[:-1] if ended else expected), run[
            "name"
        ]
        assert answer.choices[0].finish_reason == ("stop" if ended else "length")
        assert answer.usage is not None
        assert answer.usage.completion_tokens == len(expected)


def test_every_answer_of_a_search_in_order_and_streamed(
    client: OpenAI, goldens: Path, golden_chats: list[dict[str, Any]]
) -> None:
    chat = golden_chats[0]
    ask: dict[str, Any] = {"model": "", "messages": _messages(chat, goldens), "max_tokens": MAX_TOKENS}
    three = client.chat.completions.create(**ask, n=3, extra_body={"num_beams": 3})
    texts = [choice.message.content for choice in three.choices]
    assert len(set(texts)) == 3
    one = client.chat.completions.create(**ask, extra_body={"num_beams": 3})
    assert one.choices[0].message.content == texts[0]
    streamed: dict[int, list[str]] = {0: [], 1: [], 2: []}
    for chunk in client.chat.completions.create(**ask, n=3, stream=True, extra_body={"num_beams": 3}):
        if chunk.choices[0].delta.content:
            streamed[chunk.choices[0].index].append(chunk.choices[0].delta.content)
    assert streamed == {index: [text] for index, text in enumerate(texts)}


@pytest.mark.parametrize("name", ["c0_noslice", "c1_slice2", "c3_text"])
def test_log_probabilities_are_those_of_the_originals_logits(
    client: OpenAI, goldens: Path, golden_chats: list[dict[str, Any]], name: str
) -> None:
    """Of an answer's first token; penalties and temperature do not show in them."""
    chat = next(chat for chat in golden_chats if chat["name"] == name)
    with np.load(goldens / "chat.npz") as arrays:
        logits = arrays[f"{name}_logits_last16"][-1].astype(np.float64)
    expected = logits - np.log(np.exp(logits).sum())
    likeliest = np.argsort(-expected)[:20]
    answer = client.chat.completions.create(
        model="",
        messages=_messages(chat, goldens),
        temperature=1.5,
        max_tokens=1,
        seed=3,
        logprobs=True,
        top_logprobs=20,
    )
    assert answer.choices[0].logprobs is not None
    (token,) = answer.choices[0].logprobs.content or []
    assert [top.logprob for top in token.top_logprobs] == pytest.approx(expected[likeliest], abs=1e-3)
    named = {top.token for top in token.top_logprobs}
    assert named == {piece_of(int(token_id)) for token_id in likeliest if not 101 <= token_id <= 112} | {
        name for name in named if name.startswith("<") and len(name) > 1
    }


def test_seeded_choices_over_http(client: OpenAI, goldens: Path, golden_chats: list[dict[str, Any]]) -> None:
    chat = golden_chats[1]
    ask: dict[str, Any] = {
        "model": "",
        "messages": _messages(chat, goldens),
        "max_tokens": 12,
        "temperature": 1.0,
        "seed": 5,
    }
    four = client.chat.completions.create(**ask, n=4, logprobs=True)
    texts = [choice.message.content for choice in four.choices]
    assert len(set(texts)) == 4
    assert client.chat.completions.create(**ask).choices[0].message.content == texts[0]
    streamed = ["", "", "", ""]
    for chunk in client.chat.completions.create(**ask, n=4, stream=True):
        streamed[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert streamed == texts
    assert four.usage is not None
    told = [choice.logprobs.content or [] for choice in four.choices if choice.logprobs is not None]
    assert sum(map(len, told)) == four.usage.completion_tokens
    for text, content in zip(texts, told, strict=True):
        assert b"".join(bytes(one.bytes or []) for one in content).decode().strip() == text
