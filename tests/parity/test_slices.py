"""Slicing against the original: sizes and grids of 66 images, pixels of six, placeholders of all."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.artifacts import ImageConfig, TokenIds
from service.prompt.chat_template import ChatTemplate
from service.prompt.conversation import Conversation, ImagePart, Turn
from service.vision.decode import ImageLimits, decode_image, read_header
from service.vision.preprocess import cut_slices, normalize
from service.vision.slicing import plan_slices
from tests.parity.stub_tokenizer import StubTokenizer


@pytest.fixture(scope="module")
def slices(goldens: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((goldens / "slices.json").read_text())
    return data


@pytest.fixture(scope="module")
def image_config(slices: dict[str, Any]) -> ImageConfig:
    return ImageConfig(**slices["params"])


def test_sizes_and_grids(slices: dict[str, Any], image_config: ImageConfig) -> None:
    assert len(slices["cases"]) == 66
    for case in slices["cases"]:
        plan = plan_slices(case["w"], case["h"], image_config)
        assert list(plan.overview) == case["source"], case
        assert (list(plan.grid) if plan.grid else None) == case["grid"], case
        assert plan.num_images == case["n_images"], case
        if plan.grid:
            cols, rows = plan.grid
            assert plan.slice_size is not None
            assert case["patches"] == [[list(plan.slice_size)] * cols] * rows, case


def test_placeholders(slices: dict[str, Any], image_config: ImageConfig) -> None:
    stub = StubTokenizer()
    template = ChatTemplate(stub, TokenIds(), image_config.query_num)
    conversation = Conversation(None, (Turn("user", (ImagePart(0),)),))
    for case in slices["cases"]:
        plan = plan_slices(case["w"], case["h"], image_config)
        prompt = template.render(conversation, [plan.grid])
        image = "<image>" + "<unk>" * image_config.query_num + "</image>"
        placeholder = case["placeholder_compact"].replace("{IMG}", image)
        assert hashlib.sha256(placeholder.encode()).hexdigest() == case["placeholder_sha256"]
        assert prompt.token_ids.tolist() == [1, *stub.encode_trusted(f"<用户>{placeholder}\n<AI>")], case
        assert len(prompt.image_slots) == case["n_images"]


def test_pixels(slices: dict[str, Any], image_config: ImageConfig, goldens: Path) -> None:
    cases = [case for case in slices["cases"] if "input_png" in case]
    assert len(cases) == 6
    for case in cases:
        data = (goldens / "images" / case["input_png"]).read_bytes()
        header = read_header(data, ImageLimits(), "image")
        plan = plan_slices(header.width, header.height, image_config)
        images = cut_slices(decode_image(data, header), plan)
        digests = [hashlib.sha256(image.tobytes()).hexdigest() for image in images]
        assert digests == case["images_rgb_sha256"], case["input_png"]


def test_normalised_pixels_are_the_encoders_inputs(image_config: ImageConfig, goldens: Path) -> None:
    cases = json.loads((goldens / "vision.json").read_text())
    assert len(cases) == 12
    for case in cases:
        data = (goldens / "images" / case["image"]).read_bytes()
        image = decode_image(data, read_header(data, ImageLimits(), "image"))
        pixels = normalize([image], image_config)
        assert pixels.shape == (1, 3, case["H"], case["W"])
        # First pixel exact in f32; the sum depends on the order of addition only.
        assert pixels[0, :, 0, 0].tolist() == case["pixel_first"]
        assert np.isclose(pixels.sum(dtype=np.float64), case["pixel_sum"], rtol=0, atol=1e-2)
