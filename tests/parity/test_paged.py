"""The paged runner against the stateful run of the same IR and against the original's logits."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
from numpy.typing import NDArray

from service.engine.batch import Batch, ScheduledChunk
from service.engine.language_model import DeviceConfig, LanguageModel
from service.engine.model_runner import ModelRunner
from service.engine.token_events import ImageSpan
from service.errors import StartupError
from tests.parity.conftest import EXACT, Arrays, chat_prompt

TOLERANCE = 3e-5  # logits reach about 10 and everything is f32
NUM_BLOCKS = 100

Logits = NDArray[np.float32]


class Paged:
    """A runner with sequences that lie wherever one puts them."""

    def __init__(self, model: LanguageModel) -> None:
        self.block_size = model.block_size
        self._runner: ModelRunner = model.new_runner(NUM_BLOCKS, 64, 2400)
        self._free = np.random.default_rng(5).permutation(NUM_BLOCKS).astype(np.int32)

    def blocks(self, num_tokens: int) -> NDArray[np.int32]:
        """Blocks nobody has, in no order."""
        taken, self._free = np.split(self._free, [-(-num_tokens // self.block_size)])
        return taken

    def chunk(
        self,
        token_ids: NDArray[np.int64],
        begin: int,
        end: int,
        blocks: NDArray[np.int32],
        spans: tuple[ImageSpan, ...] = (),
    ) -> ScheduledChunk:
        used = blocks[: -(-end // self.block_size)]
        inside = tuple(s for s in spans if s.start < end and begin < s.start + len(s.embeddings))
        return ScheduledChunk(0, token_ids[begin:end], begin, used, inside, samples=True)

    def run(self, *chunks: ScheduledChunk) -> Logits:
        num_tokens = sum(len(chunk.token_ids) for chunk in chunks)
        return self._runner.run(Batch(chunks, num_tokens, len(chunks))).copy()

    def run_cut(
        self, token_ids: NDArray[np.int64], cuts: list[int], spans: tuple[ImageSpan, ...] = ()
    ) -> Logits:
        """Logits of the last token of every piece. [len(cuts) - 1, vocab_size]"""
        blocks = self.blocks(cuts[-1])
        pairs = pairwise(cuts)
        rows = [self.run(self.chunk(token_ids, begin, end, blocks, spans)) for begin, end in pairs]
        return np.concatenate(rows)


@pytest.fixture
def paged(exact_model: LanguageModel) -> Paged:
    return Paged(exact_model)


@pytest.fixture(scope="module")
def token_ids(llm: Arrays) -> NDArray[np.int64]:
    ids: NDArray[np.int64] = llm["input_ids"][0]
    return ids


@pytest.fixture(scope="module")
def stateful(golden_irs: Path, token_ids: NDArray[np.int64]) -> Logits:
    """Logits of the same prompt from the IR as it lies on disk. [48, vocab_size]"""
    core = ov.Core()
    exact = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}
    text = core.compile_model(golden_irs / "text_embeddings.xml", "CPU", exact)
    model = core.compile_model(golden_irs / "language_model.xml", "CPU", exact)
    num_tokens = len(token_ids)
    inputs = {
        "inputs_embeds": text(token_ids[None])[0],
        "attention_mask": np.ones((1, num_tokens), dtype=np.int64),
        "position_ids": np.arange(num_tokens, dtype=np.int64)[None],
        "beam_idx": np.zeros(1, dtype=np.int32),
    }
    logits: Logits = model.create_infer_request().infer(inputs)[0][0].copy()
    return logits


def test_whole_prefill(paged: Paged, token_ids: NDArray[np.int64], stateful: Logits, llm: Arrays) -> None:
    """Every prefix as a sequence of its own, all in one step: the last rows are the prompt's rows."""
    chunks = [paged.chunk(token_ids, 0, end, paged.blocks(end)) for end in range(1, len(token_ids) + 1)]
    logits = paged.run(*chunks)
    np.testing.assert_allclose(logits, stateful, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(logits, llm["logits"], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
    "cuts", [[0, 32, 48], [0, 16, 32, 48], [0, 1, 2, 31, 32, 33, 47, 48], list(range(49))], ids=str
)
def test_chunked_prefill(
    paged: Paged, token_ids: NDArray[np.int64], cuts: list[int], stateful: Logits, llm: Arrays
) -> None:
    logits = paged.run_cut(token_ids, cuts)
    rows = [end - 1 for end in cuts[1:]]
    np.testing.assert_allclose(logits, stateful[rows], rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(logits, llm["logits"][rows], rtol=0, atol=TOLERANCE)


def test_decode_steps_after_a_prefill(paged: Paged, token_ids: NDArray[np.int64], llm: Arrays) -> None:
    logits = paged.run_cut(token_ids, [0, *range(40, 49)])
    np.testing.assert_allclose(logits[1:], llm["kvcache_step_logits"], rtol=0, atol=TOLERANCE)


def test_prefill_and_decodes_in_one_step(
    paged: Paged, token_ids: NDArray[np.int64], stateful: Logits, llm: Arrays
) -> None:
    other = llm["batch_ids"][1][llm["batch_mask"][1] == 1]
    expected_other = llm["batch_logits_row1_real"]
    ours, theirs, third = paged.blocks(48), paged.blocks(48), paged.blocks(48)
    paged.run(paged.chunk(token_ids, 0, 40, ours))
    for step in range(8):
        cut = 3 * step, 3 * step + 3
        logits = paged.run(
            paged.chunk(token_ids, 40 + step, 41 + step, ours),
            paged.chunk(other, *cut, theirs),
            paged.chunk(token_ids, 6 * step, 6 * step + 6, third),
        )
        expected = np.stack([stateful[40 + step], expected_other[cut[1] - 1], stateful[6 * step + 5]])
        np.testing.assert_allclose(logits, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("cuts", [[0, 1024, 2047, 2300], [0, 480, 1024, 2047, 2296, 2300]], ids=str)
def test_long_prompt(paged: Paged, llm: Arrays, cuts: list[int]) -> None:
    logits = paged.run_cut(llm["long_ids"][0], cuts)
    rows = {end - 1: row for end, row in zip(cuts[1:], logits, strict=True)}
    for row, expected in zip(llm["long_rows"].tolist(), llm["long_logits"], strict=True):
        np.testing.assert_allclose(rows[row], expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["c0_noslice", "c1_slice2", "c2_slice_tall", "c3_text", "c4_multiturn"])
@pytest.mark.parametrize("size", [1000, 50])
def test_prompts_with_images(paged: Paged, chat: Arrays, name: str, size: int) -> None:
    ids, spans = chat_prompt(chat, name)
    cuts = sorted({*range(0, len(ids) - 15, size), *range(len(ids) - 15, len(ids) + 1)})
    logits = paged.run_cut(ids, cuts, spans)[-16:]
    np.testing.assert_allclose(logits, chat[f"{name}_logits_last16"], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("precision", ["u8", "f16"])
def test_a_narrow_cache_is_close_and_cuts_at_block_ends_leave_no_trace(
    load_model: Callable[[DeviceConfig], LanguageModel], llm: Arrays, precision: str
) -> None:
    config = DeviceConfig(kv_cache_precision=precision, inference_precision="f32")
    paged = Paged(load_model(config))
    ids = llm["long_ids"][0][:200]
    whole = paged.run_cut(ids, [0, 200])
    for cuts in ([0, 32, 200], [0, 64, 160, 200], [0, 192, 200]):
        assert np.array_equal(paged.run_cut(ids, cuts)[-1:], whole)
    logits = paged.run_cut(llm["input_ids"][0], [0, 48])[0]
    np.testing.assert_allclose(logits, llm["logits"][-1], rtol=0, atol=0.1 if precision == "u8" else 0.01)
    assert load_model(config).block_bytes < load_model(EXACT).block_bytes


@pytest.mark.parametrize(
    "config",
    [DeviceConfig(device="NOSUCH"), DeviceConfig(kv_cache_precision="f99")],
    ids=["device", "precision"],
)
def test_what_the_device_refuses_is_named_in_one_line(
    load_model: Callable[[DeviceConfig], LanguageModel], config: DeviceConfig
) -> None:
    with pytest.raises(StartupError, match=r"NOSUCH|f99") as caught:
        load_model(config)
    assert "\n" not in caught.value.message
