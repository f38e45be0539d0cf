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
