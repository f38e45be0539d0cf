"""synthesise -> export -> serve -> chat: the path of a user with a checkpoint, by the real programs."""

import asyncio
import base64
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI, OpenAI
from PIL import Image, ImageDraw

from service.artifacts import WEIGHT_FORMATS, WeightFormat, read_manifest
from tests.golden_check import PRECISIONS, RUNNERS, pass_the_golden_check
from tests.live_server import LiveServer

EXACT = {"inference_precision": "f32", "kv_cache_precision": "f32"}
Plan = tuple[list[Any], dict[str, Any]]  # messages, options
GREEDY: dict[str, Any] = {"model": "", "temperature": 0, "max_tokens": 16}


def _picture(width: int, height: int, colour: str) -> dict[str, Any]:
    image = Image.new("RGB", (width, height), "white")
    ImageDraw.Draw(image).ellipse((width // 4, height // 4, width // 2, height // 2), fill=colour)
    buffer = BytesIO()
    image.save(buffer, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _ask(*content: dict[str, Any]) -> list[Any]:
    return [{"role": "user", "content": list(content)}]


CONVERSATIONS: list[list[Any]] = [
    [{"role": "user", "content": "Tell me about the sea."}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Tell me about the sea."}],
    _ask(_picture(300, 200, "red"), _text("What is this?")),
    _ask(_picture(300, 200, "blue"), _text("What is this?")),
    _ask(_picture(700, 500, "green"), _text("What is this?")),
    _ask(_picture(300, 200, "red"), _picture(200, 300, "blue"), _text("Which is larger?")),
    [
        *_ask(_picture(300, 200, "red"), _text("What is this?")),
        {"role": "assistant", "content": "A circle."},
        *_ask(_picture(500, 480, "blue"), _text("And this?")),
    ],
    [{"role": "user", "content": "你好，请描述大海。"}],
]


@pytest.fixture(scope="module")
def server(tiny_artifacts: Path) -> Iterator[LiveServer]:
    with LiveServer(model_dir=tiny_artifacts, weights="fp16", max_num_batched_tokens=96, **EXACT) as live:
        yield live


@pytest.fixture(scope="module")
def client(server: LiveServer) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.base_url}/v1", api_key="none", max_retries=0) as client:
        yield client


def _alone(client: OpenAI, messages: list[Any], **options: Any) -> Any:
    return client.chat.completions.create(messages=messages, **(GREEDY | options))


def _without_cached(usage: Any) -> dict[str, Any]:
    """The second of two equal requests finds the first one's prefix."""
    numbers: dict[str, Any] = usage.model_dump()
    del numbers["prompt_tokens_details"]["cached_tokens"]
    return numbers


def test_the_stream_tells_the_same_as_the_unary_answer(client: OpenAI) -> None:
    for messages in CONVERSATIONS:
        unary = _alone(client, messages)
        chunks = list(_alone(client, messages, stream=True, stream_options={"include_usage": True}))
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert text == unary.choices[0].message.content
        assert _without_cached(chunks[-1].usage) == _without_cached(unary.usage)
        assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == unary.choices[0].finish_reason


def test_different_images_and_questions_give_different_answers(client: OpenAI) -> None:
    answers = [_alone(client, messages).choices[0].message.content for messages in CONVERSATIONS]
    assert len(set(answers)) == len(answers)


def test_image_slots_count_in_the_usage(client: OpenAI) -> None:
    usage = [_alone(client, messages, max_tokens=1).usage for messages in CONVERSATIONS]
    image_tokens = [u.prompt_tokens_details.image_tokens for u in usage]
    # 64 slots an image: none, one overview, an overview with two slices, and two images.
    assert image_tokens[0] == 0
    assert image_tokens[2] == 64
    assert image_tokens[4] > 64
    assert image_tokens[5] == 128


def test_a_second_turn_about_an_image_finds_the_first(server: LiveServer, client: OpenAI) -> None:
    image, other = _picture(420, 300, "purple"), _picture(420, 300, "orange")
    question = _text("What is the shape in the middle of this picture, and which colour does it have?")

    def cached(first: dict[str, Any], **options: Any) -> int:
        answer = _alone(client, _ask(first, question), max_tokens=1, **options)
        assert answer.usage.prompt_tokens > 64
        return int(answer.usage.prompt_tokens_details.cached_tokens)

    assert cached(image) == 0
    found = cached(image)
    assert found >= 64  # the image's slots at least
    assert cached(other) == 0
    assert cached(image, extra_body={"cache_salt": "somebody else's"}) == 0
    assert cached(image) == found


def test_answers_do_not_depend_on_the_prefix_cache(tiny_artifacts: Path, client: OpenAI) -> None:
    warm = [_alone(client, messages).choices[0].message.content for messages in CONVERSATIONS * 2]
    off = LiveServer(model_dir=tiny_artifacts, weights="fp16", enable_prefix_caching="false", **EXACT)
    with off as live, OpenAI(base_url=f"{live.base_url}/v1", api_key="none", max_retries=0) as cold:
        assert [_alone(cold, messages).choices[0].message.content for messages in CONVERSATIONS] * 2 == warm


async def _together(base_url: str, plans: list[Plan]) -> list[str | None]:
    """Answers to all plans, asked at once."""
    async with AsyncOpenAI(base_url=f"{base_url}/v1", api_key="none", max_retries=0) as client:
        asks = (client.chat.completions.create(messages=m, **(GREEDY | options)) for m, options in plans)
        answers: list[Any] = await asyncio.gather(*asks)
    return [answer.choices[0].message.content for answer in answers]


async def test_concurrent_clients_get_what_they_get_alone(server: LiveServer, client: OpenAI) -> None:
    sampled: dict[str, Any] = {"temperature": 0.9, "seed": 11, "max_tokens": 24, "extra_body": {"top_k": 20}}
    plans: list[Plan] = [(messages, options) for messages in CONVERSATIONS for options in ({}, sampled)]
    alone = [_alone(client, messages, **options).choices[0].message.content for messages, options in plans]
    assert await _together(server.base_url, plans) == alone


async def test_preempted_answers_are_the_same(tiny_artifacts: Path, client: OpenAI) -> None:
    long: dict[str, Any] = {"max_tokens": 64, "extra_body": {"ignore_eos": True}}
    plans: list[Plan] = [([{"role": "user", "content": f"Count from {n}."}], long) for n in range(8)]
    alone = [_alone(client, messages, **options).choices[0].message.content for messages, options in plans]
    # Too few blocks for eight answers at once: some must wait, lose their blocks and start over.
    small = LiveServer(model_dir=tiny_artifacts, weights="fp16", kv_cache_size="1500kB", **EXACT)
    with small as cramped:
        assert await _together(cramped.base_url, plans) == alone


@pytest.mark.parametrize("weights", WEIGHT_FORMATS)
def test_every_variant_is_served(tiny_artifacts: Path, weights: WeightFormat) -> None:
    assert weights in read_manifest(tiny_artifacts).variants
    with (
        LiveServer(model_dir=tiny_artifacts, weights=weights) as live,
        OpenAI(base_url=f"{live.base_url}/v1", api_key="none", max_retries=0) as client,
    ):
        answer = _alone(client, CONVERSATIONS[4])
    assert answer.usage.completion_tokens > 0
    assert answer.choices[0].finish_reason in {"stop", "length"}


@pytest.mark.parametrize("weights", WEIGHT_FORMATS)
@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize(("inference", "kv_cache"), PRECISIONS)
async def test_every_variant_passes_the_golden_check(
    tiny_artifacts: Path, weights: WeightFormat, runner: str, inference: str, kv_cache: str
) -> None:
    precisions = {"inference_precision": inference, "kv_cache_precision": kv_cache}
    await pass_the_golden_check(tiny_artifacts, weights=weights, runner=runner, **precisions)


@pytest.mark.parametrize("weights", WEIGHT_FORMATS)
def test_exact_runs_start_with_the_artifacts_golden_answer(
    tiny_artifacts: Path, weights: WeightFormat
) -> None:
    with LiveServer(model_dir=tiny_artifacts, weights=weights, **EXACT) as live:
        log = live.stop()
    assert "the golden answer is the artifact's" in log
