"""Several engines as one: who gets a request, what is summed, what a failure or an abort touches."""

import asyncio
import random
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace

import numpy as np
import pytest

from service.engine.block_digest import prompt_digests
from service.engine.block_manager import BlockManager
from service.engine.engine import Engine, EngineConfig
from service.engine.router import EngineRouter, total
from service.engine.sampler import SamplerState
from service.engine.sampling_params import SamplingParams
from service.engine.sequence import Sequence
from service.engine.step_loop import EngineStats
from service.engine.token_events import EngineRequest, TokenEvent
from service.errors import InvalidValueError
from tests.unit.engine.scripted_model import (
    EOS,
    VOCAB_SIZE,
    ScriptedModel,
    greedy_answer,
    image_span,
    request,
)

CONFIG = EngineConfig(
    max_position_embeddings=64,
    eos_token_id=EOS,
    kv_cache_bytes=400,
    max_num_seqs=3,
    max_num_batched_tokens=16,
)
LONG = SamplingParams(max_tokens=40)


class Pair:
    """Two engines behind a router."""

    def __init__(self, config: EngineConfig = CONFIG) -> None:
        self.models = [ScriptedModel(), ScriptedModel()]
        self.engines = [Engine(model, config) for model in self.models]
        self.router = EngineRouter(self.engines)

    @property
    def queries(self) -> list[int]:
        """Prompt tokens every engine has admitted."""
        return [engine.stats().prefix_cache_queries for engine in self.engines]

    def stop(self) -> None:
        for model in self.models:
            model.may_run.set()
        self.router.stop()


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    pair = Pair()
    pair.router.start()
    yield pair
    await asyncio.to_thread(pair.stop)


async def collect(router: EngineRouter, one: EngineRequest) -> list[TokenEvent]:
    return [event async for event in router.stream(one)]


async def collect_from(engine: Engine, one: EngineRequest) -> list[TokenEvent]:
    return [event async for event in engine.stream(one)]


def tokens_of(events: list[TokenEvent]) -> list[int]:
    return [token for event in events for token in event.token_ids]


async def test_a_prompt_goes_where_its_beginning_is(pair: Pair) -> None:
    prompts = [[5, 6, 7, 8, 9, 10, 11, 12, 13], [15, 16, 17, 18, 19, 20, 21, 22, 23]]
    pair.models[0].may_run.clear()
    held = asyncio.create_task(collect(pair.router, request("a", prompts[0])))
    await asyncio.to_thread(pair.models[0].in_step.wait)
    await collect(pair.router, request("b", prompts[1]))  # to the idle one
    pair.models[0].may_run.set()
    await held
    assert pair.queries == [9, 9]
    for repeat in range(3):
        for index, prompt in enumerate(prompts):
            before = pair.queries
            events = await collect(pair.router, request(f"{repeat}-{index}", [*prompt, 30 + repeat]))
            assert events[0].num_cached_tokens == 8
            assert tokens_of(events) == greedy_answer(np.array([*prompt, 30 + repeat]), 5)
            assert pair.queries[1 - index] == before[1 - index]


async def test_without_a_prefix_the_least_loaded_is_chosen(pair: Pair) -> None:
    for model in pair.models:
        model.may_run.clear()
    tasks = []
    for index in range(4):
        tasks.append(asyncio.create_task(collect(pair.router, request(str(index), [4, index], LONG))))
        await asyncio.sleep(0)
    assert [engine.num_unfinished for engine in pair.engines] == [2, 2]
    for model in pair.models:
        model.may_run.set()
    for index, events in enumerate(await asyncio.gather(*tasks)):
        assert tokens_of(events) == greedy_answer(np.array([4, index]), 40)


async def test_nobody_queues_for_a_prefix_while_another_engine_is_free(pair: Pair) -> None:
    prompt = [5, 6, 7, 8, 9]
    await collect(pair.router, request("warm", prompt))
    pair.models[0].may_run.clear()
    tasks = []
    for index in range(CONFIG.max_num_seqs + 1):
        tasks.append(asyncio.create_task(collect(pair.router, request(str(index), prompt, LONG))))
        await asyncio.sleep(0)
    assert [engine.num_unfinished for engine in pair.engines] == [CONFIG.max_num_seqs, 1]
    pair.models[0].may_run.set()
    expected = greedy_answer(np.array(prompt), 40)
    assert [tokens_of(events) for events in await asyncio.gather(*tasks)] == [expected] * len(tasks)


async def test_where_nobody_is_free_the_fewest_that_come_before_decide(pair: Pair) -> None:
    for model in pair.models:
        model.may_run.clear()
    tasks = []
    for index in range(CONFIG.max_num_seqs):  # patient ones fill the second engine, others the first
        one = request(f"{index}", [4, 10 + index], LONG, priority=1)
        tasks.append(asyncio.create_task(collect_from(pair.engines[1], one)))
        tasks.append(asyncio.create_task(collect_from(pair.engines[0], replace(one, priority=0))))
        await asyncio.sleep(0)
    tasks.append(asyncio.create_task(collect(pair.router, request("a", [4, 0], LONG))))
    await asyncio.sleep(0)
    assert [engine.num_unfinished for engine in pair.engines] == [3, 4]
    tasks.append(asyncio.create_task(collect(pair.router, request("b", [4, 2], LONG, priority=2))))
    await asyncio.sleep(0)
    assert [engine.num_unfinished for engine in pair.engines] == [4, 4]
    for model in pair.models:
        model.may_run.set()
    await asyncio.gather(*tasks)


async def test_an_abort_ends_one_request_and_no_other(pair: Pair) -> None:
    for model in pair.models:
        model.may_run.clear()
    tasks = []
    for name in ("a", "b"):
        tasks.append(asyncio.create_task(collect(pair.router, request(name, [4, 5], LONG))))
        await asyncio.sleep(0)
    await asyncio.to_thread(pair.models[1].in_step.wait)
    pair.router.abort("a")
    pair.router.abort("nobody")
    for model in pair.models:
        model.may_run.set()
    ended, other = await asyncio.gather(*tasks)
    assert ended[-1].finish_reason == "abort"
    assert tokens_of(other) == greedy_answer(np.array([4, 5]), 40)
    assert pair.router.stats().running == 0


async def test_closing_a_stream_aborts_it_where_it_runs(pair: Pair) -> None:
    async with aclosing(pair.router.stream(request("a", [4, 5], LONG))) as events:
        await anext(events)
    assert tokens_of(await collect(pair.router, request("a", [4, 5]))) == greedy_answer(np.array([4, 5]), 5)
    while pair.router.stats().used_blocks:
        await asyncio.sleep(0.001)


async def test_an_id_is_used_once_at_a_time_over_all_engines(pair: Pair) -> None:
    async with aclosing(pair.router.stream(request("a", [4], LONG))) as events:
        await anext(events)
        with pytest.raises(InvalidValueError):
            await collect(pair.router, request("a", [4]))


async def test_one_failed_engine_is_a_failed_router(pair: Pair) -> None:
    pair.models[0].failure = RuntimeError("secret")
    events = await collect(pair.router, request("a", [4]))
    assert [event.finish_reason for event in events] == ["error"]
    assert [engine.is_healthy for engine in pair.engines] == [False, True]
    assert not pair.router.is_healthy


def test_limits_and_sums() -> None:
    engines = [Engine(ScriptedModel(), replace(CONFIG, kv_cache_bytes=size)) for size in (400, 39)]
    router = EngineRouter(engines)
    assert router.max_model_len == 12
    assert router.stats() == EngineStats(0, 0, 0, 43, 0)
    assert total([EngineStats(1, 2, 3, 4, 5, 6, 7)] * 2) == EngineStats(2, 4, 6, 8, 10, 12, 14)


@pytest.mark.parametrize("seed", range(20))
def test_a_routers_digests_are_the_sequences(seed: int) -> None:
    rng = random.Random(seed)
    block_size = rng.choice([1, 3, 4, 8])
    spans = tuple(image_span(start, bytes([rng.randrange(3)])) for start in (2, 9, 20) if rng.random() < 0.7)
    prompt = [rng.randrange(3, 9) for _ in range(rng.randrange(26, 40))]
    one = request("a", prompt, image_spans=spans, cache_salt=rng.choice([b"", b"salt"]))
    blocks = BlockManager(50, block_size)
    state = SamplerState(one.sampling, EOS, VOCAB_SIZE)
    sequence = Sequence(0, one, blocks.new_table(60), state, EOS)
    expected = [sequence.block_digest(i, block_size) for i in range((len(prompt) - 1) // block_size)]
    assert list(prompt_digests(one, block_size)) == expected


async def test_asking_for_a_prefix_disturbs_no_step(pair: Pair) -> None:
    """Other threads ask all the time while blocks are registered, shared and evicted."""
    engine, stop, failures = pair.engines[0], threading.Event(), list[BaseException]()
    prompts = [[3 + i % 7] * 9 + [i % 40] for i in range(60)]

    def ask() -> None:
        try:
            while not stop.is_set():
                for prompt in prompts[:7]:
                    assert engine.num_cached_tokens(request("x", prompt)) in (0, 4, 8)
        except BaseException as error:
            failures.append(error)

    askers = [threading.Thread(target=ask) for _ in range(3)]
    for asker in askers:
        asker.start()
    try:
        answers = await asyncio.gather(
            *(collect(pair.router, request(str(i), prompt)) for i, prompt in enumerate(prompts))
        )
    finally:
        stop.set()
        for asker in askers:
            asker.join()
    assert not failures
    for prompt, events in zip(prompts, answers, strict=True):
        assert tokens_of(events) == greedy_answer(np.array(prompt), 5)
