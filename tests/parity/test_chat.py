"""Prompts and pixel inputs of five whole chat() runs of the original, with the goldens' stub tokenizer."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.artifacts import ImageConfig, TokenIds
from service.prompt.chat_template import ChatTemplate, RenderedPrompt
from service.prompt.conversation import Conversation, ImagePart, TextPart, Turn
from service.prompt.detokenizer import Detokenizer
from service.vision.decode import ImageLimits, decode_image, read_header
from service.vision.preprocess import cut_slices
from service.vision.slicing import SlicePlan, plan_slices
from tests.parity.stub_tokenizer import StubTokenizer

CASES = ("c0_noslice", "c1_slice2", "c2_slice_tall", "c3_text", "c4_multiturn")


@pytest.fixture(scope="module")
def config(goldens: Path) -> ImageConfig:
    config = json.loads((goldens / "config.json").read_text())
    return ImageConfig(**{name: config[name] for name in ImageConfig.model_fields if name in config})


@pytest.fixture(scope="module")
def cases(goldens: Path) -> dict[str, dict[str, Any]]:
    return {case["name"]: case for case in json.loads((goldens / "chat.json").read_text())}


@pytest.fixture(scope="module")
def arrays(goldens: Path) -> Any:
    with np.load(goldens / "chat.npz") as file:
        return {name: file[name] for name in file.files if name.endswith(("_input_ids", "_image_bound"))}


def _plan(case: dict[str, Any], config: ImageConfig, goldens: Path) -> SlicePlan | None:
    if case["image"] is None:
        return None
    header = read_header((goldens / "images" / case["image"]).read_bytes(), ImageLimits(), "image")
    return plan_slices(header.width, header.height, config)


def _render(case: dict[str, Any], plan: SlicePlan | None, config: ImageConfig) -> RenderedPrompt:
    turns = [Turn(msg["role"], (TextPart(msg["content"]),)) for msg in case["msgs"]]
    if plan is not None:
        turns[0] = Turn("user", (ImagePart(0), *turns[0].parts))
    template = ChatTemplate(StubTokenizer(), TokenIds(), config.query_num)
    return template.render(Conversation(None, tuple(turns)), [] if plan is None else [plan.grid])


@pytest.mark.parametrize("name", CASES)
def test_prompt(
    name: str, cases: dict[str, dict[str, Any]], arrays: Any, config: ImageConfig, goldens: Path
) -> None:
    case = cases[name]
    prompt = _render(case, _plan(case, config, goldens), config)
    assert prompt.token_ids.dtype == np.int64
    assert prompt.token_ids.tolist() == arrays[f"{name}_input_ids"].tolist()
    assert len(prompt.token_ids) == case["n_tokens"]
    bounds = [[slots.start, slots.start + config.query_num] for slots in prompt.image_slots]
    assert bounds == case["image_bound"] == arrays[f"{name}_image_bound"].tolist()
    assert [(slots.image_index, slots.slice_index) for slots in prompt.image_slots] == [
        (0, index) for index in range(len(bounds))
    ]


@pytest.mark.parametrize("name", CASES)
def test_prompt_text(name: str, cases: dict[str, dict[str, Any]], config: ImageConfig) -> None:
    """The golden's own prompt string, whose digest it names, stands for the ids compared above."""
    case = cases[name]
    image = "<image>" + "<unk>" * config.query_num + "</image>"
    text = case["prompt_compact"].replace("{IMG}", image)
    assert hashlib.sha256(text.encode()).hexdigest() == case["prompt_sha256"]


@pytest.mark.parametrize("name", CASES)
def test_slices_have_the_originals_sizes(
    name: str, cases: dict[str, dict[str, Any]], config: ImageConfig, goldens: Path
) -> None:
    case = cases[name]
    plan = _plan(case, config, goldens)
    sizes = []
    if plan is not None:
        data = (goldens / "images" / case["image"]).read_bytes()
        image = decode_image(data, read_header(data, ImageLimits(), "image"))
        sizes = [list(pixels.shape[:2]) for pixels in cut_slices(image, plan)]
    assert sizes == case["images_hw"]


@pytest.mark.parametrize("name", CASES)
def test_answer_text(name: str, cases: dict[str, dict[str, Any]]) -> None:
    case = cases[name]
    detokenizer = Detokenizer(StubTokenizer(), TokenIds())
    text = "".join(detokenizer.push([token_id]) for token_id in case["beam3_rep1p2_new_ids"])
    assert text + detokenizer.flush() == case["answer_from_decode_text"]
