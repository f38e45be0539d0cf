"""The stateful runner: the oracle the paged one is held against, and an engine of its own."""

import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.engine.batch import Batch
from service.engine.engine import Engine
from service.engine.language_model import DeviceConfig, LanguageModel
from service.engine.runner_choice import has_paged_attention, load_language_model
from service.engine.sampling_params import SamplingParams
from service.engine.stateful_model import StatefulModel
from service.engine.token_events import EngineRequest
from service.errors import StartupError
from tests.parity.conftest import EXACT, Arrays, chat_prompt
from tests.parity.test_generate import answer, engine_request, new_engine
from tests.parity.test_paged import TOLERANCE, Paged

CHATS = ["c0_noslice", "c1_slice2", "c2_slice_tall", "c3_text", "c4_multiturn"]


@pytest.fixture(scope="module")
def stateful_model(golden_irs: Path) -> StatefulModel:
    return StatefulModel(golden_irs / "language_model.xml", golden_irs / "text_embeddings.xml", EXACT)


@pytest.fixture
def engine(stateful_model: StatefulModel) -> Engine:
    return new_engine(stateful_model, 100, 8, 512)


async def test_greedy_answers_are_the_originals(
    engine: Engine, generate_runs: list[dict[str, Any]], generate: Arrays, chat: Arrays
) -> None:
    """All asked at once, answered one after another."""
    runs = [run for run in generate_runs if "num_beams" not in run["kwargs"]]
    engine.start()
    answers = await asyncio.gather(*(answer(engine, engine_request(run, generate, chat)) for run in runs))
    engine.stop()
    for run, tokens in zip(runs, answers, strict=True):
        assert tokens == run["new_ids"], run["name"]
    stats = engine.stats()
    assert engine.max_num_seqs == 1
    assert (stats.preemptions, stats.prefix_cache_hits, stats.prefix_cache_queries) == (0, 0, 0)


@pytest.mark.parametrize("name", CHATS)
@pytest.mark.parametrize("size", [1000, 64])
def test_both_runners_give_the_same_logits(
    stateful_model: StatefulModel, exact_model: LanguageModel, chat: Arrays, name: str, size: int
) -> None:
    """Whole and in chunks, images included, with decode steps behind."""
    ids, spans = chat_prompt(chat, name)
    cuts = sorted({*range(0, len(ids) - 4, size), *range(len(ids) - 4, len(ids) + 1)})
    paged = Paged(exact_model)
    expected = paged.run_cut(ids, cuts, spans)
    runner = stateful_model.new_runner(100, 1, 1000)
    for begin, end, row in zip(cuts, cuts[1:], expected, strict=False):
        chunk = paged.chunk(ids, begin, end, np.arange(100, dtype=np.int32), spans)
        logits = runner.run(Batch((chunk,), end - begin, 1))
        np.testing.assert_allclose(logits[0], row, rtol=0, atol=TOLERANCE)


async def test_both_engines_answer_alike_beside_others_aborted(
    engine: Engine, exact_model: LanguageModel, chat: Arrays
) -> None:
    paged = new_engine(exact_model, 400, 8, 128)
    sampled = SamplingParams(max_tokens=30, temperature=0.8, top_k=50, seed=3, ignore_eos=True)
    engine.start()
    paged.start()
    for sampling in (SamplingParams(max_tokens=30, ignore_eos=True), sampled):
        requests = [EngineRequest(name, *chat_prompt(chat, name), sampling) for name in CHATS]
        expected = [await answer(paged, request) for request in requests]
        async with aclosing(
            engine.stream(EngineRequest("left", *chat_prompt(chat, CHATS[1]), sampled))
        ) as events:
            await anext(events)
            tasks = [asyncio.create_task(answer(engine, request)) for request in requests]
            await anext(events)
        assert await asyncio.gather(*tasks) == expected
    for each in (engine, paged):
        each.stop()
        assert each.stats().used_blocks == 0


def test_what_a_state_cannot_do_is_refused_not_answered(
    stateful_model: StatefulModel, exact_model: LanguageModel, chat: Arrays
) -> None:
    ids, spans = chat_prompt(chat, CHATS[0])
    chunks = Paged(exact_model)
    blocks = np.arange(100, dtype=np.int32)
    first, second, skipping = (
        chunks.chunk(ids, begin, end, blocks, spans) for begin, end in ((0, 32), (32, 64), (48, 64))
    )
    runner = stateful_model.new_runner(100, 1, 512)
    with pytest.raises(RuntimeError):
        runner.run(Batch((second,), 32, 1))
    runner.run(Batch((first,), 32, 1))
    with pytest.raises(RuntimeError):
        runner.run(Batch((skipping,), 16, 1))
    with pytest.raises(RuntimeError):
        runner.run(Batch((first, second), 64, 2))
    assert runner.run(Batch((second,), 32, 1)).shape == (1, stateful_model.vocab_size)


@pytest.mark.parametrize("precision", ["u8", "f16", "f32"])
def test_the_size_of_a_block(golden_irs: Path, precision: str) -> None:
    config = DeviceConfig(kv_cache_precision=precision)
    files = golden_irs / "language_model.xml", golden_irs / "text_embeddings.xml"
    model = StatefulModel(*files, config)
    heads, head_dim = 4, 64
    scales = 8 * heads if precision == "u8" else 0
    token_bytes = heads * head_dim * {"u8": 8, "f16": 16, "f32": 32}[precision] // 8 + scales
    assert model.block_bytes == 2 * 3 * token_bytes * model.block_size


def test_the_choice_follows_the_device(golden_irs: Path) -> None:
    files = golden_irs / "language_model.xml", golden_irs / "text_embeddings.xml"
    assert has_paged_attention("CPU", files[0])
    assert not has_paged_attention("NOSUCH", files[0])
    assert load_language_model(*files, DeviceConfig()).is_paged
    assert not load_language_model(*files, DeviceConfig(), "stateful").is_paged
    assert not load_language_model(*files, DeviceConfig(device="AUTO")).is_paged
    with pytest.raises(StartupError, match="NOSUCH"):
        load_language_model(*files, DeviceConfig(device="NOSUCH"))
