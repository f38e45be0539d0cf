"""Several generations as one, over a scripted engine: order, counts, and one end for all."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from service.errors import EngineError, InvalidValueError, NotReadyError, OverloadedError
from service.generation.generation_batch import GenerationBatch
from service.generation.generator import Generator
from service.protocol.completion_request import CompletionRequest
from service.vision.worker import VisionWorker
from tests.conformance.scripted_service import (
    ByteTokenizer,
    ScriptedEncoder,
    ScriptedEngine,
    generator_config,
)


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
def generator(engine: ScriptedEngine) -> Iterator[Generator]:
    worker = VisionWorker(ScriptedEncoder())
    yield Generator(engine, worker, ByteTokenizer(), generator_config(max_in_flight=4))
    worker.close()


async def _begin(generator: Generator, **fields: Any) -> GenerationBatch:
    request = CompletionRequest.model_validate({"prompt": ["a", "bb"]} | fields)
    return await generator.begin_completion(request)


async def test_choices_are_numbered_prompt_by_prompt(generator: Generator) -> None:
    batch = await _begin(generator, n=2)
    assert batch.num_choices == 4
    assert [batch.prompt_text(index) for index in range(4)] == ["a", "a", "bb", "bb"]
    texts = [""] * 4
    async for delta in batch.deltas():
        texts[delta.index] += delta.text
    assert texts == ["The answer.", "The answer.1"] * 2
    batch.close()


async def test_the_usage_is_that_of_the_deltas_taken(generator: Generator) -> None:
    """However far the generations have run ahead."""
    batch = await _begin(generator)
    num_taken = 0
    async for delta in batch.deltas():
        await asyncio.sleep(0.001)
        num_taken += delta.num_tokens
        usage = batch.usage()
        assert usage.completion_tokens == num_taken
        assert usage.total_tokens == usage.prompt_tokens + num_taken
    assert (batch.usage().prompt_tokens, num_taken) == (2 + 3, 12 + 12)
    batch.close()


async def test_places_are_given_back_once_and_together(generator: Generator) -> None:
    batch = await _begin(generator, prompt=["a", "b", "c"])
    assert generator.num_in_flight == 3
    with pytest.raises(OverloadedError):
        await _begin(generator)
    assert generator.num_in_flight == 3
    batch.close()
    batch.close()
    assert generator.num_in_flight == 0


async def test_places_are_taken_before_a_grammar_is_compiled(generator: Generator) -> None:
    """Compilations wait for one another: those that wait must be under the limit."""
    faulty = {"regex": "("}
    with pytest.raises(InvalidValueError):
        await _begin(generator, structured_outputs=faulty)
    assert generator.num_in_flight == 0
    batch = await _begin(generator, prompt=["a", "b", "c"])
    with pytest.raises(OverloadedError):
        await _begin(generator, structured_outputs=faulty)
    batch.close()


async def test_leaving_early_ends_all(generator: Generator, engine: ScriptedEngine) -> None:
    engine.endless = True
    batch = await _begin(generator)
    deltas = batch.deltas()
    await anext(deltas)
    await deltas.aclose()
    batch.close()
    assert sorted(engine.closed) == sorted(request.request_id for request in engine.requests)
    assert len(engine.closed) == 2


async def test_a_failure_of_one_ends_all(generator: Generator, engine: ScriptedEngine) -> None:
    engine.fail_after = 3
    batch = await _begin(generator)
    with pytest.raises(EngineError):
        async for _ in batch.deltas():
            pass
    batch.close()
    assert len([task for task in asyncio.all_tasks() if task is not asyncio.current_task()]) == 0
    assert generator.num_in_flight == 0


async def test_all_are_ended_from_outside(generator: Generator, engine: ScriptedEngine) -> None:
    engine.endless, engine.max_model_len = True, 100_000
    batch = await _begin(generator, max_tokens=10_000)
    deltas = batch.deltas()
    await anext(deltas)
    generator.abort_all()
    with pytest.raises(NotReadyError):
        async for _ in deltas:
            pass
    batch.close()
