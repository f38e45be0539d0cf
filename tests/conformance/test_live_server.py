"""`python -m service` in a process of its own on the embedded model: answers, signals, bad artifacts."""

import json
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI
from openai.types import CompletionUsage

from service.artifacts import read_manifest
from service.settings import EMBEDDED_MODEL_DIR
from tests.conformance.wire import CHAT, ask, data_url, events_of, image_part, png
from tests.image_host import ImageHost, reply
from tests.live_server import REPOSITORY, LiveServer

QUERY_NUM = read_manifest(EMBEDDED_MODEL_DIR).model.image.query_num
PHOTO = REPOSITORY / "samples" / "cat.jpg"


def _without_cached(usage: CompletionUsage | None) -> dict[str, Any]:
    """The second of two equal requests finds the first one's prefix."""
    assert usage is not None
    numbers = usage.model_dump()
    del numbers["prompt_tokens_details"]["cached_tokens"]
    return numbers


def test_a_photograph_streamed_and_whole(live: LiveServer) -> None:
    messages: list[Any] = ask(
        {"type": "image_url", "image_url": {"url": data_url(PHOTO.read_bytes())}}, "What is in the picture?"
    )["messages"]
    with OpenAI(base_url=f"{live.base_url}/v1", api_key="none", max_retries=0) as client:
        (model,) = client.models.list()
        whole = client.chat.completions.create(
            model=model.id, messages=messages, temperature=0, max_tokens=24
        )
        chunks = list(
            client.chat.completions.create(
                model=model.id,
                messages=messages,
                temperature=0,
                max_tokens=24,
                stream=True,
                stream_options={"include_usage": True},
            )
        )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert _without_cached(chunks[-1].usage) == _without_cached(whole.usage)
    assert whole.usage is not None
    assert whole.usage.to_dict()["prompt_tokens_details"]["image_tokens"] % QUERY_NUM == 0  # type: ignore[index]


def test_a_response_about_a_photograph_is_the_chats_answer(live: LiveServer) -> None:
    url = data_url(PHOTO.read_bytes())
    question = "What is in the picture?"
    content: Any = [
        {"type": "input_image", "image_url": url, "detail": "auto"},
        {"type": "input_text", "text": question},
    ]
    chat = ask({"type": "image_url", "image_url": {"url": url}}, question, temperature=0, max_tokens=24)
    answer = httpx.post(f"{live.base_url}{CHAT}", json=chat, timeout=60).json()
    with OpenAI(base_url=f"{live.base_url}/v1", api_key="none", max_retries=0) as client:
        request: Any = {
            "model": answer["model"],
            "input": [{"role": "user", "content": content}],
            "temperature": 0,
            "max_output_tokens": 24,
        }
        whole = client.responses.create(**request)
        with client.responses.stream(**request) as stream:
            streamed = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        assert whole.output_text == streamed == answer["choices"][0]["message"]["content"]
        assert whole.usage is not None
        assert whole.usage.input_tokens == answer["usage"]["prompt_tokens"]
        assert whole.usage.output_tokens == answer["usage"]["completion_tokens"]
        assert whole.usage.input_tokens_details.cached_tokens > 0
        follow_up: Any = [*request["input"], *whole.output, {"role": "user", "content": "Which colours?"}]
        assert client.responses.create(**request | {"input": follow_up}).status in ("completed", "incomplete")


def test_a_completion_of_a_chats_tokens_is_the_chats_answer(live: LiveServer) -> None:
    """Whoever sends the chat format gets a chat; whoever sends a text does not."""
    body = ask("What can you do?", temperature=0, max_tokens=24)
    chat = httpx.post(f"{live.base_url}{CHAT}", json=body, timeout=60).json()
    tokens = httpx.post(f"{live.base_url}/tokenize", json={"messages": body["messages"]}).json()["tokens"]
    with OpenAI(base_url=f"{live.base_url}/v1", api_key="none", max_retries=0) as client:
        fields: Any = {"model": chat["model"], "temperature": 0, "max_tokens": 24}
        raw = client.completions.create(prompt=tokens, **fields)
        chunks = list(client.completions.create(prompt=tokens, stream=True, **fields))
        several = client.completions.create(prompt=["The", "A", "naïve 你好"], n=2, logprobs=1, **fields)
    text = raw.choices[0].text
    assert text.strip() == chat["choices"][0]["message"]["content"]
    assert "".join(choice.text for chunk in chunks for choice in chunk.choices) == text
    assert raw.usage is not None
    assert raw.usage.prompt_tokens == chat["usage"]["prompt_tokens"] == len(tokens)
    assert raw.usage.completion_tokens == chat["usage"]["completion_tokens"]
    assert [choice.index for choice in several.choices] == list(range(6))
    for first, second in zip(several.choices[::2], several.choices[1::2], strict=True):
        assert first.text == second.text, "greedy choices of one prompt are the same"
    for choice in several.choices:
        told = choice.logprobs
        assert told is not None
        assert told.tokens is not None
        assert told.text_offset is not None
        ends = [*told.text_offset[1:], len(choice.text)]
        for token, start, end in zip(told.tokens, told.text_offset, ends, strict=True):
            if not token.startswith(("bytes:", "</s>")):
                assert choice.text[start:end] == token


def test_seeded_answers_repeat(live: LiveServer) -> None:
    body = ask("Tell me about the sea.", seed=5, max_tokens=24, temperature=1.2)
    answers = [httpx.post(f"{live.base_url}{CHAT}", json=body, timeout=60).json() for _ in range(3)]
    assert len({answer["choices"][0]["message"]["content"] for answer in answers}) == 1
    assert answers[0]["system_fingerprint"].startswith("fp_")


def test_refusals_on_the_real_model(live: LiveServer) -> None:
    for body, code in (
        (ask(image_part(b"noise")), "invalid_image"),
        (ask("x" * 100_000), "context_length_exceeded"),
        (ask("x", max_tokens=1_000_000), "context_length_exceeded"),
        (ask(image_part(png(17_000, 1))), "request_too_large"),
        (ask(stop_token_ids=[1 << 30]), None),
    ):
        reply = httpx.post(f"{live.base_url}{CHAT}", json=body, timeout=60)
        assert reply.json()["error"]["code"] == code
        assert reply.status_code in (400, 413)


def _stream_until_stopped(server: LiveServer) -> tuple[list[Any], int]:
    """Stop the server in the middle of a stream: (its events, the exit code)."""
    body = ask("Count.", stream=True, max_tokens=500, ignore_eos=True)
    received = bytearray()
    stopping = threading.Thread(target=server.stop)
    with httpx.stream("POST", f"{server.base_url}{CHAT}", json=body, timeout=120) as reply:
        for piece in reply.iter_raw():
            received += piece
            if stopping.ident is None and b'"content"' in received:
                stopping.start()
    stopping.join()
    return events_of(bytes(received)), server.process.returncode


def test_sigterm_lets_a_stream_finish() -> None:
    with LiveServer(model_dir=EMBEDDED_MODEL_DIR, drain_timeout=100) as server:
        events, code = _stream_until_stopped(server)
    assert events[-1] == "[DONE]"
    assert events[-2]["choices"][0]["finish_reason"] == "length"
    assert code == 0


def test_the_drain_timeout_ends_a_stream_with_an_error() -> None:
    with LiveServer(model_dir=EMBEDDED_MODEL_DIR, drain_timeout=0) as server:
        events, code = _stream_until_stopped(server)
    assert events[-1] == "[DONE]"
    assert events[-2]["error"]["code"] == "model_not_ready"
    assert code == 0


def _start(model_dir: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "service", "--model-dir", str(model_dir)],
        env=variables,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
    )


def _flip_a_byte(directory: Path) -> None:
    file = next(directory.glob("language_model_int8*.bin"))
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def _remove_the_tokenizer(directory: Path) -> None:
    (directory / "tokenizer.model").unlink()


def _bump_the_format(directory: Path) -> None:
    manifest = json.loads((directory / "manifest.json").read_text(encoding="utf-8"))
    (directory / "manifest.json").write_text(json.dumps(manifest | {"format_version": 99}), encoding="utf-8")


def _cut_the_manifest(directory: Path) -> None:
    text = (directory / "manifest.json").read_text(encoding="utf-8")
    (directory / "manifest.json").write_text(text[: len(text) // 2], encoding="utf-8")


def _scramble_the_manifest(directory: Path) -> None:
    (directory / "manifest.json").write_bytes(b"\xff\xfe{")


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (_flip_a_byte, "language_model_int8"),
        (_remove_the_tokenizer, "tokenizer.model"),
        (_bump_the_format, "manifest.json"),
        (_cut_the_manifest, "manifest.json"),
        (_scramble_the_manifest, "manifest.json"),
    ],
)
def test_damaged_artifacts_end_the_start_in_one_line(
    tmp_path: Path, damage: Callable[[Path], None], named: str
) -> None:
    directory = tmp_path / "model"
    shutil.copytree(EMBEDDED_MODEL_DIR, directory)
    damage(directory)
    done = _start(directory)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert named in done.stderr


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"MINICPMV_DEVICE": "NOSUCH"}, "NOSUCH"),
        ({"MINICPMV_KV_CACHE_SIZE": "10"}, "KV cache"),
        ({"MINICPMV_KV_CACHE_SIZE": "9000TiB"}, "MINICPMV_KV_CACHE_SIZE"),
    ],
)
def test_what_fails_while_loading_ends_the_process(variables: dict[str, str], named: str) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    done = _start(EMBEDDED_MODEL_DIR, MINICPMV_PORT=port, **variables)
    assert done.returncode == 1
    assert named in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_port_in_use_ends_the_process() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = _start(EMBEDDED_MODEL_DIR, MINICPMV_PORT=str(taken.getsockname()[1]))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")


def test_an_image_of_a_listed_host_is_answered_as_an_inline_one() -> None:
    with ImageHost({"/cat?token=secret": reply(PHOTO.read_bytes())}) as host:
        settings = {"image_hosts": f"http://127.0.0.1:{host.port}", "image_hosts_may_be_private": "true"}
        with LiveServer(**settings, log_level="debug") as server:
            answers = []
            for url in (data_url(PHOTO.read_bytes()), host.url("/cat?token=secret")):
                part = {"type": "image_url", "image_url": {"url": url}}
                body = ask(part, "What is in the picture?", temperature=0, max_tokens=12)
                answer = httpx.post(f"{server.base_url}{CHAT}", json=body, timeout=120)
                assert answer.status_code == 200
                answers.append(answer.json()["choices"])
            assert answers[0] == answers[1]
            log = server.stop()
    assert len(host.requests) == 1
    assert "images are fetched from" in log
    assert "secret" not in log
