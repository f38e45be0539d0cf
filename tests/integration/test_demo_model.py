"""The embedded model knows what it sees: a small exam over HTTP, and the same answers however they are asked.

The full exam, with a seed never used before, is `python -m demo_model evaluate`; its table is in
demo_model/README.md.
"""

import json
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import openvino as ov
import pytest

from demo_model.evaluate import ask_case, case_messages, examine
from demo_model.exam import Case, cases
from demo_model.rows import ROWS, Row
from demo_model.settings import CHECKPOINT
from service.artifacts import read_manifest
from service.settings import EMBEDDED_MODEL_DIR
from tests.convert_run import run_convert
from tests.live_server import LiveServer

SEED = 20
CASES = 24  # of every row
# What the committed weights reached where it is short of the aim: demo_model/README.md.
REACHED = {"how many": 0.80}
IMAGE = read_manifest(EMBEDDED_MODEL_DIR).model.image
EXACT = {"inference_precision": "f32", "kv_cache_precision": "f32"}


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    """What `make serve` starts."""
    with LiveServer() as live:
        yield live


@pytest.fixture(scope="module")
def exact_server() -> Iterator[LiveServer]:
    with LiveServer(**EXACT) as live:
        yield live


@pytest.fixture(scope="module")
def varied() -> list[Case]:
    """Two cases of every row, without those that ask twice."""
    drawn = [case for row in ROWS for case in cases(row, 2, SEED, IMAGE)]
    return [case for case in drawn if case.before is None]


@pytest.fixture(scope="module")
def alone(exact_server: LiveServer, varied: list[Case]) -> list[str]:
    """Their answers, one after another."""
    return [ask_case(exact_server.base_url, case) for case in varied]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The committed checkpoint, exported again."""
    directory = tmp_path_factory.mktemp("demo") / "artifacts"
    done = run_convert(
        *("export", "--checkpoint", CHECKPOINT, "--output", directory),
        *("--model-id", "MiniCPM-V-2-demo", "--weights", "fp16", "int8"),
    )
    assert done.returncode == 0, done.stderr
    return directory


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_it_knows_what_it_was_taught(server: LiveServer, row: Row) -> None:
    [mark] = examine(server.base_url, CASES, SEED, IMAGE, [row])
    wrong = [(case.question, case.answer, answer) for case, answer in mark.mistakes]
    assert row.minimum is not None
    assert mark.accuracy >= _least(REACHED.get(row.name, row.minimum)), wrong


def test_streamed_answers_are_the_unary_ones(
    exact_server: LiveServer, varied: list[Case], alone: list[str]
) -> None:
    assert [_streamed(exact_server.base_url, case) for case in varied] == alone


def test_batched_with_fifteen_others_they_are_the_same(
    exact_server: LiveServer, varied: list[Case], alone: list[str]
) -> None:
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(lambda case: ask_case(exact_server.base_url, case), varied)) == alone


def test_without_caches_they_are_the_same(varied: list[Case], alone: list[str]) -> None:
    with LiveServer(enable_prefix_caching="false", image_cache_size="0", **EXACT) as cold:
        assert [ask_case(cold.base_url, case) for case in varied] == alone


def test_preempted_they_are_the_same(varied: list[Case], alone: list[str]) -> None:
    # Room for two or three of the longest prompts: the others wait, or lose their blocks and start over.
    with (
        LiveServer(kv_cache_size="12MB", enable_prefix_caching="false", **EXACT) as cramped,
        ThreadPoolExecutor(16) as pool,
    ):
        assert list(pool.map(lambda case: ask_case(cramped.base_url, case), varied)) == alone


def test_same_words_other_image(exact_server: LiveServer) -> None:
    """The answer follows the picture, in either order and with every cache warm."""
    shape = ROWS[0]
    drawn = [case for case in cases(shape, 60, SEED + 1, IMAGE) if case.question == "What shape is this?"]
    first = next(case for case in drawn if case.answer == "circle")
    other = next(case for case in drawn if case.answer == "star")
    answers = [ask_case(exact_server.base_url, case) for case in (first, other, first, other)]
    assert answers == ["circle", "star", "circle", "star"]


def test_fp16_answers_like_int8(exported: Path, varied: list[Case], alone: list[str]) -> None:
    with LiveServer(model_dir=exported, weights="fp16", **EXACT) as fp16:
        answers = [ask_case(fp16.base_url, case) for case in varied]
    different = [pair for pair in zip(answers, alone, strict=True) if pair[0] != pair[1]]
    assert len(different) <= 1, different  # one close call may tip over


def test_exported_again_the_checkpoint_gives_the_committed_numbers(exported: Path) -> None:
    committed, again = read_manifest(EMBEDDED_MODEL_DIR), read_manifest(exported)
    assert again.source.digest == committed.source.digest
    assert again.variants["int8"].golden_tokens == committed.variants["int8"].golden_tokens
    core = ov.Core()
    pixels = np.random.default_rng(0).uniform(-1, 1, (1, 3, 98, 126)).astype(np.float32)
    outputs = [
        core.compile_model(directory / "image_encoder_int8.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(
            [pixels]
        )[0]
        for directory in (EMBEDDED_MODEL_DIR, exported)
    ]
    np.testing.assert_allclose(outputs[0], outputs[1], atol=1e-4)


def _least(accuracy: float) -> float:
    """What a model of that accuracy reaches in CASES cases, but for one exam in 150 (2.5 deviations)."""
    return accuracy - 2.5 * math.sqrt(accuracy * (1 - accuracy) / CASES)


def _streamed(url: str, case: Case) -> str:
    body = {"messages": case_messages(case), "temperature": 0, "max_tokens": 48, "stream": True}
    text = ""
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=120) as reply:
        for line in reply.iter_lines():
            if line.startswith("data: ") and line != "data: [DONE]":
                text += json.loads(line[6:])["choices"][0]["delta"].get("content") or ""
    return text
