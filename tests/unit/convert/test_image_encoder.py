"""The image encoder's graph against its torch module, at sizes the example was not traced with."""

from pathlib import Path

import numpy as np
import openvino as ov
import pytest
import torch

from convert import image_encoder
from convert.checkpoint import Checkpoint
from convert.variant_run import compile_exact, infer
from convert.weight_cast import WeightCast


@pytest.fixture(scope="module")
def module(tiny: Checkpoint) -> image_encoder.ImageEncoder:
    return image_encoder.build(tiny, WeightCast(torch.float32))


@pytest.fixture(scope="module")
def request_(exported: Path) -> ov.InferRequest:
    return compile_exact(exported / "image_encoder_fp16.xml")


@pytest.mark.parametrize(
    ("n", "height", "width"),
    [(1, 378, 378), (1, 126, 1134), (2, 43, 57), (1, 1, 300), (1, 700, 3), (3, 14, 14), (1, 448, 448)],
)
def test_any_size_and_batch(
    n: int, height: int, width: int, module: image_encoder.ImageEncoder, request_: ov.InferRequest
) -> None:
    pixels = np.random.default_rng(height).uniform(-1, 1, (n, 3, height, width)).astype(np.float32)
    embeddings = infer(request_, pixel_values=pixels)
    with torch.no_grad():
        expected = module(torch.from_numpy(pixels)).numpy()
    assert embeddings.shape == (n, 64, 256)
    # f16 holds bf16 weights but for the tiniest, so the two agree as two f32 runs do
    np.testing.assert_allclose(embeddings, expected, rtol=0, atol=1e-5)


def test_ports(exported: Path) -> None:
    graph = ov.Core().read_model(exported / "image_encoder_int8.xml")
    assert [port.get_any_name() for port in graph.inputs] == ["pixel_values"]
    assert graph.inputs[0].partial_shape == ov.PartialShape([-1, 3, -1, -1])
    assert [port.get_any_name() for port in graph.outputs] == ["image_embeddings"]
