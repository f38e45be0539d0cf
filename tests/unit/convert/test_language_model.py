"""The exported language model's ports, cache and precision."""

from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from numpy.typing import NDArray
from openvino._offline_transformations import paged_attention_transformation

from convert.variant_run import compile_exact, infer

HIDDEN = 256
VOCAB = 1024
LAYERS = 2


@pytest.fixture(scope="module")
def path(exported: Path) -> Path:
    return exported / "language_model_fp16.xml"


@pytest.fixture
def graph(path: Path) -> ov.Model:
    return ov.Core().read_model(path)


@pytest.fixture(scope="module")
def request_(path: Path) -> ov.InferRequest:
    return compile_exact(path)


@pytest.fixture(scope="module")
def embeds() -> NDArray[np.float32]:
    """Three different prompts of nine tokens."""
    return np.random.default_rng(3).standard_normal((3, 9, HIDDEN)).astype(np.float32)


def _step(
    request: ov.InferRequest, rows: NDArray[np.float32], past: int, beams: list[int]
) -> NDArray[np.float32]:
    batch, tokens, _ = rows.shape
    return infer(
        request,
        inputs_embeds=rows,
        attention_mask=np.ones((batch, past + tokens), dtype=np.int64),
        position_ids=np.arange(past, past + tokens)[None].repeat(batch, 0),
        beam_idx=np.array(beams, dtype=np.int32),
    )


def test_ports(graph: ov.Model) -> None:
    ports = {port.get_any_name(): (port.element_type, port.partial_shape) for port in graph.inputs}
    assert ports == {
        "inputs_embeds": (ov.Type.f32, ov.PartialShape([-1, -1, HIDDEN])),
        "attention_mask": (ov.Type.i64, ov.PartialShape([-1, -1])),
        "position_ids": (ov.Type.i64, ov.PartialShape([-1, -1])),
        "beam_idx": (ov.Type.i32, ov.PartialShape([-1])),
    }
    (output,) = graph.outputs
    assert output.get_any_name() == "logits"
    assert output.partial_shape == ov.PartialShape([-1, -1, VOCAB])
    assert len(graph.get_sinks()) == 2 * LAYERS


def test_tail_is_a_product_and_a_division(graph: ov.Model) -> None:
    division = graph.outputs[0].node.input_value(0).get_node()
    product = division.input_value(0).get_node()
    assert (division.get_type_name(), product.get_type_name()) == ("Divide", "MatMul")
    assert list(product.input_value(1).get_partial_shape()) in ([VOCAB, HIDDEN], [HIDDEN, VOCAB])


def test_matrices_are_f16_and_everything_else_keeps_f32(graph: ov.Model) -> None:
    constants: list[Any] = [op for op in graph.get_ops() if op.get_type_name() == "Constant"]
    floats = [op for op in constants if op.get_element_type() in (ov.Type.f16, ov.Type.f32)]
    matrices = [op for op in floats if np.prod(op.get_output_shape(0)) > 4096]
    assert len(matrices) == 7 * LAYERS + 1
    assert {op.get_element_type() for op in matrices} == {ov.Type.f16}
    small = [op for op in floats if 1 < np.prod(op.get_output_shape(0)) <= 4096]
    assert small  # norms and rotary frequencies
    assert {op.get_element_type() for op in small} == {ov.Type.f32}


def test_prompt_in_pieces_equals_prompt_at_once(
    request_: ov.InferRequest, embeds: NDArray[np.float32]
) -> None:
    request_.reset_state()
    whole = _step(request_, embeds, 0, [0, 1, 2])
    request_.reset_state()
    pieces = [
        _step(request_, embeds[:, begin:end], begin, [0, 1, 2]) for begin, end in ((0, 4), (4, 5), (5, 9))
    ]
    np.testing.assert_allclose(np.concatenate(pieces, axis=1), whole, rtol=0, atol=2e-5)


def test_a_reset_state_takes_any_batch(request_: ov.InferRequest, embeds: NDArray[np.float32]) -> None:
    request_.reset_state()
    together = _step(request_, embeds, 0, [0, 1, 2])
    for row in range(3):
        request_.reset_state()
        alone = _step(request_, embeds[row : row + 1], 0, [0])
        np.testing.assert_allclose(alone[0], together[row], rtol=0, atol=2e-5)


def test_beam_idx_reorders_the_cache(request_: ov.InferRequest, embeds: NDArray[np.float32]) -> None:
    request_.reset_state()
    straight = _step(request_, embeds, 0, [0, 1, 2])
    request_.reset_state()
    _step(request_, embeds[:, :6], 0, [0, 1, 2])
    beams = [2, 0, 2]  # one past dropped, one shared
    after = _step(request_, np.ascontiguousarray(embeds[beams][:, 6:]), 6, beams)
    np.testing.assert_allclose(after, straight[beams][:, 6:], rtol=0, atol=2e-5)
    request_.reset_state()
    _step(request_, embeds[:, :6], 0, [0, 1, 2])
    kept = _step(request_, np.ascontiguousarray(embeds[beams][:, 6:]), 6, [0, 1, 2])
    assert np.abs(kept[0] - after[0]).max() > 0.1


@pytest.mark.parametrize("weights", ["fp16", "int8", "int4"])
def test_paged_attention_transformation_takes_it(exported: Path, weights: str) -> None:
    graph = ov.Core().read_model(exported / f"language_model_{weights}.xml")
    paged_attention_transformation(graph)
    names = {port.get_any_name() for port in graph.inputs}
    caches = {f"{kind}_cache.{layer}" for kind in ("key", "value") for layer in range(LAYERS)}
    rest = {"past_lens", "subsequence_begins", "block_indices", "block_indices_begins", "max_context_len"}
    assert names == {"inputs_embeds", "position_ids"} | rest | caches
    types = [op.get_type_name() for op in graph.get_ops()]
    assert types.count("PagedAttentionExtension") == LAYERS
    assert "ScaledDotProductAttention" not in types
