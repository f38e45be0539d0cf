"""What reaches the models' inputs, watched through real graphs that hand it back."""

from dataclasses import dataclass, replace

import numpy as np
import openvino as ov
import pytest
from numpy.typing import NDArray
from openvino import opset13 as ops

from service.engine.batch import Batch, ScheduledChunk
from service.engine.input_tensor import InputTensor
from service.engine.kv_cache import KVCache, read_layout
from service.engine.language_model import gather_sampled_tokens
from service.engine.model_runner import ModelRunner
from service.engine.token_events import ImageSpan

HIDDEN, VOCAB, BLOCK_SIZE = 3, 20, 4
TABLE = np.arange(VOCAB * HIDDEN, dtype=np.float32).reshape(VOCAB, HIDDEN)
INDEX_INPUTS = ("past_lens", "subsequence_begins", "block_indices", "block_indices_begins")


def parameter(name: str, shape: list[int], dtype: ov.Type) -> ov.Node:
    node = ops.parameter(ov.PartialShape(shape), dtype=dtype, name=name)
    node.output(0).get_tensor().set_names({name})
    return node


def text_embeddings() -> ov.CompiledModel:
    input_ids = parameter("input_ids", [-1, -1], ov.Type.i64)
    rows = ops.gather(ops.constant(TABLE), input_ids, ops.constant(0, dtype=ov.Type.i64))
    return ov.Core().compile_model(ov.Model([rows], [input_ids], "text"), "CPU")


def echoing_model() -> ov.CompiledModel:
    """Output 0: the sampled tokens' embeddings as logits; the others: every index input as it came."""
    embeds = parameter("inputs_embeds", [-1, HIDDEN], ov.Type.f32)
    positions = parameter("position_ids", [-1], ov.Type.i64)
    sampled = parameter("sampled_tokens_indices", [-1], ov.Type.i64)
    context = parameter("max_context_len", [], ov.Type.i32)
    indices = [parameter(name, [-1], ov.Type.i32) for name in INDEX_INPUTS]
    key = parameter("key_cache.0", [-1, 2, BLOCK_SIZE + 1, 5], ov.Type.u8)
    value = parameter("value_cache.0", [-1, 2, BLOCK_SIZE, 6], ov.Type.f16)
    inputs = [embeds, positions, sampled, context, *indices, key, value]
    logits = ops.gather(embeds, sampled, ops.constant(0, dtype=ov.Type.i64))
    outputs = [logits, *(ops.result(node) for node in inputs[:-2])]
    return ov.Core().compile_model(ov.Model([outputs[0], *outputs[1:]], inputs, "echo"), "CPU")


@dataclass
class Harness:
    runner: ModelRunner

    def run(self, *chunks: ScheduledChunk) -> NDArray[np.float32]:
        num_tokens = sum(len(chunk.token_ids) for chunk in chunks)
        return self.runner.run(Batch(chunks, num_tokens, sum(chunk.samples for chunk in chunks)))

    def seen(self) -> dict[str, NDArray[np.float32]]:
        names = ("inputs_embeds", "position_ids", "sampled_tokens_indices", "max_context_len", *INDEX_INPUTS)
        request = self.runner._request
        return {name: request.get_output_tensor(i).data for i, name in enumerate(names, 1)}


@pytest.fixture(scope="module")
def harness() -> Harness:
    model = echoing_model()
    cache = KVCache(read_layout(model), num_blocks=10)
    return Harness(ModelRunner(model, text_embeddings(), cache, max_num_seqs=4, max_num_batched_tokens=16))


def chunk(
    token_ids: list[int],
    past_len: int,
    blocks: list[int],
    samples: bool = True,
    image_spans: tuple[ImageSpan, ...] = (),
) -> ScheduledChunk:
    return ScheduledChunk(
        0, np.array(token_ids), past_len, np.array(blocks, dtype=np.int32), image_spans, samples
    )


def test_layout_and_memory_come_from_the_compiled_model() -> None:
    layout = read_layout(echoing_model())
    assert layout.block_size == BLOCK_SIZE
    assert layout.block_bytes == 2 * (BLOCK_SIZE + 1) * 5 + 2 * BLOCK_SIZE * 6 * 2
    cache = KVCache(layout, 7)
    assert list(cache.tensors["key_cache.0"].shape) == [7, 2, BLOCK_SIZE + 1, 5]
    assert cache.tensors["value_cache.0"].element_type == ov.Type.f16
    assert not cache.tensors["value_cache.0"].data.any()


def test_a_mixed_step_and_smaller_and_larger_ones_after_it(harness: Harness) -> None:
    decode = chunk([7], 8, [4, 2, 9])
    prefill = chunk([1, 2, 3, 4], 4, [0, 5], samples=False)
    last = chunk([5, 6], 0, [3])
    for _ in range(2):
        logits = harness.run(decode, prefill, last)
        seen = harness.seen()
        assert np.array_equal(logits[:, :HIDDEN], TABLE[[7, 6]])
        assert np.array_equal(seen["inputs_embeds"], TABLE[[7, 1, 2, 3, 4, 5, 6]])
        assert seen["position_ids"].tolist() == [8, 4, 5, 6, 7, 0, 1]
        assert seen["past_lens"].tolist() == [8, 4, 0]
        assert seen["subsequence_begins"].tolist() == [0, 1, 5, 7]
        assert seen["block_indices"].tolist() == [4, 2, 9, 0, 5, 3]
        assert seen["block_indices_begins"].tolist() == [0, 3, 5, 6]
        assert seen["sampled_tokens_indices"].tolist() == [0, 6]
        assert seen["max_context_len"] == 9
        assert np.array_equal(harness.run(decode), TABLE[[7]])
        assert harness.seen()["past_lens"].tolist() == [8]
        assert harness.run(prefill).shape[0] == 0


def test_guessed_tokens_have_rows_of_their_own(harness: Harness) -> None:
    first = replace(chunk([7, 8, 9], 8, [4, 2, 9]), num_guessed=2)
    prefill, decode = chunk([1, 2], 4, [0, 5], samples=False), chunk([5], 3, [3])
    last = replace(chunk([6, 4], 0, [1]), num_guessed=1)
    batch = Batch((first, prefill, decode, last), 8, 6)
    assert np.array_equal(harness.runner.run(batch), TABLE[[7, 8, 9, 5, 6, 4]])
    assert harness.seen()["sampled_tokens_indices"].tolist() == [0, 1, 2, 5, 6, 7]


def test_copies_are_made_bit_for_bit_before_the_chunks_run() -> None:
    model = echoing_model()
    cache = KVCache(read_layout(model), num_blocks=6)
    runner = ModelRunner(model, text_embeddings(), cache, max_num_seqs=3, max_num_batched_tokens=16)
    rng = np.random.default_rng(1)
    for tensor in cache.tensors.values():
        tensor.data.view(np.uint8)[:] = rng.integers(0, 256, tensor.data.view(np.uint8).shape, dtype=np.uint8)
    before = {name: tensor.data.view(np.uint8).copy() for name, tensor in cache.tensors.items()}
    runner.run(Batch((chunk([7], 0, [5]),), 1, 1, ((0, 3), (0, 5), (2, 1))))
    for name, tensor in cache.tensors.items():
        after = tensor.data.view(np.uint8)
        assert np.array_equal(after, before[name][[0, 2, 2, 0, 4, 0]]), name


def test_what_runs_beside_the_model_changes_nothing_and_may_fail(harness: Harness) -> None:
    one = chunk([5, 6], 0, [3])
    alone = harness.run(one).copy()
    calls: list[int] = []
    beside = harness.runner.run(Batch((one,), 2, 1), lambda: calls.append(1))
    assert np.array_equal(alone, beside)
    assert calls == [1]

    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        harness.runner.run(Batch((one,), 2, 1), fail)
    assert np.array_equal(harness.run(one), alone), "the request was waited for"


def test_image_rows_replace_their_slots_in_every_cut(harness: Harness) -> None:
    rng = np.random.default_rng(0)
    first, second = (rng.standard_normal((n, HIDDEN)).astype(np.float32) for n in (4, 3))
    spans = (ImageSpan(2, first, bytes(32)), ImageSpan(6, second, bytes(32)))
    token_ids = [9, 8, 0, 0, 0, 0, 0, 0, 0, 7, 6]
    expected = np.concatenate([TABLE[[9, 8]], first, second, TABLE[[7, 6]]])
    for begin in range(11):
        for end in range(begin + 1, 12):
            inside = tuple(s for s in spans if s.start < end and begin < s.start + len(s.embeddings))
            harness.run(chunk(token_ids[begin:end], begin, [0, 1, 2], image_spans=inside))
            assert np.array_equal(harness.seen()["inputs_embeds"], expected[begin:end])


def test_no_input_is_allocated_again(harness: Harness) -> None:
    inputs = vars(harness.runner).values()
    tensors = [value.tensor for value in inputs if isinstance(value, InputTensor)]
    assert len(tensors) == 8
    harness.run(chunk([1], 0, [0]))
    addresses = [tensor.data.ctypes.data for tensor in tensors]
    harness.run(chunk(list(range(16)), 0, [0, 1, 2, 3]))
    harness.run(chunk([1], 0, [0]), chunk([1], 0, [1]), chunk([1], 4, [2, 3]))
    full = chunk([1], 10 * BLOCK_SIZE - 1, list(range(10)))
    harness.run(full, full, full)  # all share every block
    assert harness.seen()["block_indices"].tolist() == [*range(10)] * 3
    assert [tensor.data.ctypes.data for tensor in tensors] == addresses


def test_gather_stands_before_the_last_matmul() -> None:
    embeds = parameter("inputs_embeds", [-1, -1, HIDDEN], ov.Type.f32)
    inner = ops.matmul(embeds, ops.constant(np.eye(HIDDEN, dtype=np.float32)), False, False)
    lm_head = ops.matmul(ops.add(inner, embeds), ops.constant(TABLE), False, True)
    logits = ops.divide(lm_head, ops.constant(np.float32(2)))
    logits.output(0).get_tensor().set_names({"logits"})
    model = ov.Model([logits], [embeds], "tail")
    gather_sampled_tokens(model)
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    rows = np.random.default_rng(1).standard_normal((5, 1, HIDDEN)).astype(np.float32)
    picked = np.array([4, 0], dtype=np.int64)
    output = compiled({"inputs_embeds": rows, "sampled_tokens_indices": picked})[0]
    assert output.shape == (2, 1, VOCAB)
    np.testing.assert_allclose(output, rows[picked] @ TABLE.T, rtol=1e-6)
