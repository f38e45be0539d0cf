"""The language model against the original: our torch module, our layer-by-layer reference and our graph."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.parity.conftest import Arrays

torch = pytest.importorskip("torch", reason="convert needs torch")

from convert import language_model, reference  # noqa: E402
from convert.checkpoint import Checkpoint  # noqa: E402
from convert.variant_run import LanguageModelRun, TextEmbeddingsRun, compile_exact, infer  # noqa: E402
from convert.weight_cast import WeightCast  # noqa: E402

# Logits reach about 14 and everything is f32; the original's own rounding is 7e-6.
TORCH_TOLERANCE = 1e-5
GRAPH_TOLERANCE = 3e-5
CHATS = ("c0_noslice", "c1_slice2", "c2_slice_tall", "c3_text", "c4_multiturn")

Embed = Callable[[NDArray[np.int64]], NDArray[np.float32]]  # [batch, tokens] -> [batch, tokens, hidden]


@pytest.fixture(scope="module")
def checkpoint(goldens: Path) -> Checkpoint:
    return Checkpoint(goldens)


@pytest.fixture(scope="module")
def module(checkpoint: Checkpoint) -> language_model.LanguageModel:
    return language_model.build(checkpoint, WeightCast(torch.float32))


@pytest.fixture(scope="module")
def run(golden_irs: Path) -> LanguageModelRun:
    return LanguageModelRun(golden_irs / "language_model.xml")


@pytest.fixture(scope="module")
def embed(checkpoint: Checkpoint) -> Embed:
    return lambda ids: reference.embed_text(checkpoint, ids.astype(np.int64))


def _forward(
    module: language_model.LanguageModel,
    embeds: NDArray[np.float32],
    mask: NDArray[np.int64] | None = None,
    positions: NDArray[np.int64] | None = None,
) -> NDArray[np.float32]:
    """Logits f32 [batch, tokens, vocab] of prompts f32 [batch, tokens, hidden] without a past."""
    batch, tokens, _ = embeds.shape
    whole = np.ones((batch, tokens), dtype=np.int64) if mask is None else mask
    places = np.arange(tokens)[None].repeat(batch, 0) if positions is None else positions
    past = [torch.zeros(batch, 4, 0, 64) for _ in range(6)]
    with torch.no_grad():
        outputs = module(torch.from_numpy(embeds), torch.from_numpy(whole), torch.from_numpy(places), *past)
    logits: NDArray[np.float32] = outputs[0].numpy()
    return logits


def test_torch_logits(module: language_model.LanguageModel, embed: Embed, llm: Arrays) -> None:
    logits = _forward(module, embed(llm["input_ids"]))
    np.testing.assert_allclose(logits[0], llm["logits"], rtol=0, atol=TORCH_TOLERANCE)


def test_torch_hidden_states(module: language_model.LanguageModel, embed: Embed, llm: Arrays) -> None:
    embeds = torch.from_numpy(embed(llm["input_ids"]))
    with torch.no_grad():
        hidden = module.granite(inputs_embeds=embeds, output_hidden_states=True).hidden_states
    assert len(hidden) == len(llm["hidden"]) == 4
    for ours, theirs in zip(hidden, llm["hidden"], strict=True):
        np.testing.assert_allclose(ours[0].numpy(), theirs, rtol=0, atol=TORCH_TOLERANCE)


def test_torch_positions_with_gaps(module: language_model.LanguageModel, embed: Embed, llm: Arrays) -> None:
    logits = _forward(module, embed(llm["input_ids"]), positions=llm["position_ids_jump"])
    np.testing.assert_allclose(logits[0], llm["logits_jump"], rtol=0, atol=TORCH_TOLERANCE)


def test_torch_left_padding(module: language_model.LanguageModel, embed: Embed, llm: Arrays) -> None:
    logits = _forward(module, embed(llm["batch_ids"]), llm["batch_mask"], llm["batch_pos"])
    real = logits[1][llm["batch_mask"][1] == 1]
    np.testing.assert_allclose(real, llm["batch_logits_row1_real"], rtol=0, atol=TORCH_TOLERANCE)


def test_reference_layer_by_layer(checkpoint: Checkpoint, embed: Embed, llm: Arrays) -> None:
    short, long = reference.logits(checkpoint, [embed(llm["input_ids"]), embed(llm["long_ids"])])
    np.testing.assert_allclose(short, llm["logits"], rtol=0, atol=TORCH_TOLERANCE)
    np.testing.assert_allclose(long[llm["long_rows"]], llm["long_logits"], rtol=0, atol=GRAPH_TOLERANCE)


def test_graph_of_text_rows(golden_irs: Path, embed: Embed) -> None:
    table = TextEmbeddingsRun(golden_irs / "text_embeddings.xml")
    token_ids = np.arange(1000)[None].repeat(2, 0)
    np.testing.assert_allclose(table(token_ids), embed(token_ids), rtol=0, atol=1e-6)


def test_graph_logits(run: LanguageModelRun, embed: Embed, llm: Arrays) -> None:
    logits = run.start(embed(llm["input_ids"]))
    np.testing.assert_allclose(logits, llm["logits"], rtol=0, atol=GRAPH_TOLERANCE)


def test_graph_logits_of_a_long_prompt(run: LanguageModelRun, embed: Embed, llm: Arrays) -> None:
    logits = run.start(embed(llm["long_ids"]))
    np.testing.assert_allclose(logits[llm["long_rows"]], llm["long_logits"], rtol=0, atol=GRAPH_TOLERANCE)


def test_graph_keeps_its_cache(run: LanguageModelRun, embed: Embed, llm: Arrays) -> None:
    embeds = embed(llm["input_ids"])
    run.start(embeds[:, :40])
    for step, expected in enumerate(llm["kvcache_step_logits"]):
        logits = run.step(embeds[:, 40 + step : 41 + step])
        np.testing.assert_allclose(logits[0], expected, rtol=0, atol=GRAPH_TOLERANCE)


def test_graph_positions_with_gaps(golden_irs: Path, embed: Embed, llm: Arrays) -> None:
    logits = _infer(
        golden_irs, embed(llm["input_ids"]), np.ones((1, 48), dtype=np.int64), llm["position_ids_jump"]
    )
    np.testing.assert_allclose(logits[0], llm["logits_jump"], rtol=0, atol=GRAPH_TOLERANCE)


def test_graph_left_padding(golden_irs: Path, embed: Embed, llm: Arrays) -> None:
    logits = _infer(golden_irs, embed(llm["batch_ids"]), llm["batch_mask"], llm["batch_pos"])
    real = logits[1][llm["batch_mask"][1] == 1]
    np.testing.assert_allclose(real, llm["batch_logits_row1_real"], rtol=0, atol=GRAPH_TOLERANCE)


@pytest.mark.parametrize("name", CHATS)
def test_chat(
    name: str,
    module: language_model.LanguageModel,
    run: LanguageModelRun,
    embed: Embed,
    chat: Arrays,
) -> None:
    embeds = embed(chat[f"{name}_input_ids"][None])
    for (start, end), rows in zip(chat[f"{name}_image_bound"], chat.get(f"{name}_vision", ()), strict=True):
        embeds[0, start:end] = rows
    np.testing.assert_allclose(embeds[0], chat[f"{name}_embeds"], rtol=0, atol=1e-6)
    for logits, tolerance in (
        (_forward(module, embeds)[0], TORCH_TOLERANCE),
        (run.start(embeds), GRAPH_TOLERANCE),
    ):
        np.testing.assert_allclose(logits[-16:], chat[f"{name}_logits_last16"], rtol=0, atol=tolerance)
        np.testing.assert_array_equal(logits.argmax(-1), chat[f"{name}_argmax_all"])


def _infer(
    irs: Path, embeds: NDArray[np.float32], mask: NDArray[np.int64], positions: NDArray[np.int64]
) -> NDArray[np.float32]:
    request = compile_exact(irs / "language_model.xml")
    return infer(
        request,
        inputs_embeds=embeds,
        attention_mask=mask,
        position_ids=positions,
        beam_idx=np.arange(len(embeds), dtype=np.int32),
    )
