"""The engine's life: start, stop, abort, failure, and exactly one terminal event for every request."""

import asyncio
import logging
import threading
from contextlib import aclosing
from dataclasses import replace

import numpy as np
import pytest

import service.engine.engine as engine_module
from service.engine.engine import Engine, EngineConfig
from service.engine.sampling_params import BeamSearchParams, SamplingParams
from service.engine.token_events import EngineRequest, ImageSpan, TokenEvent
from service.errors import ContextLengthError, InvalidValueError, NotReadyError, RequestError, StartupError
from tests.unit.engine.scripted_model import EOS, ScriptedModel, greedy_answer, request

CONFIG = EngineConfig(
    max_position_embeddings=64,
    eos_token_id=EOS,
    kv_cache_bytes=200,
    max_num_seqs=4,
    max_num_batched_tokens=16,
)


async def collect(engine: Engine, one: EngineRequest) -> list[TokenEvent]:
    return [event async for event in engine.stream(one)]


def tokens_of(events: list[TokenEvent]) -> list[int]:
    return [token for event in events for token in event.token_ids]


@pytest.fixture
def model() -> ScriptedModel:
    return ScriptedModel()


async def test_many_clients_get_what_each_would_get_alone(model: ScriptedModel) -> None:
    engine = Engine(model, CONFIG)
    engine.start()
    prompts = [[3 + i, 5, 7 + i] * (1 + i % 4) for i in range(20)]
    answers = await asyncio.gather(*(collect(engine, request(str(i), p)) for i, p in enumerate(prompts)))
    for prompt, events in zip(prompts, answers, strict=True):
        assert tokens_of(events) == greedy_answer(np.array(prompt), 5)
        assert [event.finish_reason for event in events] == [None] * 4 + ["length"]
    await asyncio.to_thread(engine.stop)
    assert engine.stats().used_blocks == 0


async def test_all_events_of_a_step_cross_in_one_call(
    model: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(model, CONFIG)
    engine.start()
    model.may_run.clear()
    first = asyncio.create_task(collect(engine, request("0", [1, 2])))
    await asyncio.to_thread(model.in_step.wait)
    others = [asyncio.create_task(collect(engine, request(str(i), [1, i]))) for i in (1, 2, 3)]
    await asyncio.sleep(0)
    calls = 0
    deliver = engine_module._deliver

    def counted(deliveries: list[tuple[asyncio.Queue[TokenEvent], TokenEvent]]) -> None:
        nonlocal calls
        calls += 1
        assert len({event.request_id for _, event in deliveries}) == len(deliveries)
        deliver(deliveries)

    monkeypatch.setattr(engine_module, "_deliver", counted)
    model.may_run.set()
    await asyncio.gather(first, *others)
    assert model.runner is not None
    assert calls == model.runner.num_runs == 6  # one step alone, four together, one without the first
    engine.stop()


async def test_closing_the_iterator_aborts(model: ScriptedModel) -> None:
    engine = Engine(model, CONFIG)
    engine.start()
    sampling = SamplingParams(max_tokens=50)
    async with aclosing(engine.stream(request("a", [1, 2, 3], sampling))) as events:
        async for _ in events:
            model.may_run.clear()
            break
    model.may_run.set()
    after = await collect(engine, request("b", [1, 2, 3]))  # the engine saw the abort before this
    assert after[-1].finish_reason == "length"
    assert engine.stats().used_blocks == 0
    assert engine.stats().running == 0
    engine.stop()


async def test_cancelling_the_reader_aborts(model: ScriptedModel) -> None:
    engine = Engine(model, CONFIG)
    engine.start()
    model.may_run.clear()
    task = asyncio.create_task(collect(engine, request("a", [1, 2, 3], SamplingParams(max_tokens=50))))
    await asyncio.to_thread(model.in_step.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    model.may_run.set()
    await collect(engine, request("b", [1]))
    assert engine.stats().used_blocks == 0
    engine.stop()


async def test_abort_by_id_ends_the_stream_once(model: ScriptedModel) -> None:
    engine = Engine(model, CONFIG)
    engine.start()
    model.may_run.clear()
    task = asyncio.create_task(collect(engine, request("a", [1, 2, 3], SamplingParams(max_tokens=50))))
    await asyncio.to_thread(model.in_step.wait)
    for request_id in ("a", "a", "nobody"):
        engine.abort(request_id)
    model.may_run.set()
    first = greedy_answer(np.array([1, 2, 3]), 1)[0]  # the step under way is not lost
    assert await task == [TokenEvent("a", (first,)), TokenEvent("a", (), "abort")]
    engine.stop()


async def test_stop_ends_running_waiting_and_unseen_requests(model: ScriptedModel) -> None:
    engine = Engine(model, replace(CONFIG, max_num_seqs=1))
    engine.start()
    model.may_run.clear()
    sampling = SamplingParams(max_tokens=30)
    tasks = [asyncio.create_task(collect(engine, request(str(i), [1, i], sampling))) for i in range(3)]
    await asyncio.to_thread(model.in_step.wait)
    tasks.append(asyncio.create_task(collect(engine, request("late", [1, 9], sampling))))
    await asyncio.sleep(0)
    assert engine.stats().waiting >= 1
    stopping = asyncio.create_task(asyncio.to_thread(engine.stop))
    while engine.is_healthy:
        await asyncio.sleep(0)
    model.may_run.set()
    await stopping
    for events in await asyncio.gather(*tasks):
        assert [event.finish_reason for event in events if event.finish_reason] == ["abort"]
    with pytest.raises(NotReadyError):
        await collect(engine, request("b", [1]))
    engine.stop()  # again does no harm


async def test_a_failing_step_fails_everybody_and_the_engine(
    model: ScriptedModel, caplog: pytest.LogCaptureFixture
) -> None:
    engine = Engine(model, replace(CONFIG, max_num_seqs=1))
    engine.start()
    model.may_run.clear()
    model.failure = RuntimeError("secret content")
    tasks = [asyncio.create_task(collect(engine, request(str(i), [1, i]))) for i in range(3)]
    await asyncio.to_thread(model.in_step.wait)
    with caplog.at_level(logging.ERROR):
        model.may_run.set()
        for events in await asyncio.gather(*tasks):
            assert [event.finish_reason for event in events] == ["error"]
            assert tokens_of(events) == []
    assert not engine.is_healthy
    assert caplog.messages == ["engine step failed: RuntimeError"]
    with pytest.raises(NotReadyError):
        await collect(engine, request("b", [1]))
    await asyncio.to_thread(engine.stop)
    assert not engine.is_healthy


async def test_stop_before_start_and_health(model: ScriptedModel) -> None:
    engine = Engine(model, CONFIG)
    assert not engine.is_healthy
    with pytest.raises(NotReadyError):
        await collect(engine, request("a", [1]))
    engine.stop()
    assert not engine.is_healthy


async def test_an_engine_outlives_an_event_loop(model: ScriptedModel) -> None:
    engine = Engine(model, CONFIG)
    engine.start()
    expected = greedy_answer(np.array([4, 4]), 5)
    for _ in range(2):
        events = await asyncio.to_thread(lambda: asyncio.run(collect(engine, request("a", [4, 4]))))
        assert tokens_of(events) == expected
    engine.stop()


SPAN = ImageSpan(1, np.zeros((2, 8), dtype=np.float32), bytes(32))


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (request("a", []), InvalidValueError),
        (request("a", [1], SamplingParams(max_tokens=0)), InvalidValueError),
        (request("a", [1, 50]), InvalidValueError),
        (request("a", [-1]), InvalidValueError),
        (request("a", [1] * 60), ContextLengthError),
        (request("a", [1], SamplingParams(max_tokens=64)), ContextLengthError),
        (request("a", [0, 0], image_spans=(SPAN,)), InvalidValueError),
        (request("a", [0] * 4, image_spans=(SPAN, SPAN)), InvalidValueError),
        (
            request("a", [0] * 9, image_spans=(replace(SPAN, embeddings=SPAN.embeddings[:, :5]),)),
            RequestError,
        ),
    ],
)
async def test_requests_that_cannot_run_are_refused(
    model: ScriptedModel, bad: EngineRequest, error: type[Exception]
) -> None:
    engine = Engine(model, CONFIG)
    engine.start()
    with pytest.raises(error):
        await collect(engine, bad)
    assert tokens_of(await collect(engine, request("a", [1, 2]))) == greedy_answer(np.array([1, 2]), 5)
    engine.stop()


async def test_the_limit_is_the_smaller_of_context_and_cache_and_is_reached_exactly(
    model: ScriptedModel,
) -> None:
    assert Engine(model, CONFIG).max_model_len == 64
    engine = Engine(model, replace(CONFIG, kv_cache_bytes=39))
    assert engine.max_model_len == 12  # three blocks of four tokens
    engine.start()
    events = await collect(engine, request("a", [1] * 5, SamplingParams(max_tokens=7)))
    assert tokens_of(events) == greedy_answer(np.array([1] * 5), 7)
    with pytest.raises(ContextLengthError, match=r"6 tokens and 7 .* 12 tokens"):
        await collect(engine, request("a", [1] * 6, SamplingParams(max_tokens=7)))
    engine.stop()


async def test_a_request_id_is_used_once_at_a_time(model: ScriptedModel) -> None:
    engine = Engine(model, CONFIG)
    engine.start()
    async with aclosing(engine.stream(request("a", [1], SamplingParams(max_tokens=40)))) as events:
        await anext(events)
        with pytest.raises(InvalidValueError):
            await collect(engine, request("a", [1]))
    engine.stop()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"kv_cache_bytes": 9}, "KV cache"),
        ({"max_num_seqs": 0}, "max_num_seqs"),
        ({"max_num_batched_tokens": 6}, "at least 7"),
    ],
)
def test_sizes_that_contradict_are_refused(model: ScriptedModel, change: dict[str, int], text: str) -> None:
    fields = {name: getattr(CONFIG, name) for name in EngineConfig.__dataclass_fields__}
    with pytest.raises(StartupError, match=text):
        Engine(model, EngineConfig(**(fields | change)))


CHOICES = SamplingParams(max_tokens=6, temperature=1.0, seed=1, n=3)
BEAMS = SamplingParams(max_tokens=6, n=2, beam_search=BeamSearchParams(3))


@pytest.mark.parametrize("sampling", [CHOICES, BEAMS], ids=["choices", "beams"])
async def test_a_stream_ends_with_the_last_of_its_choices(
    model: ScriptedModel, sampling: SamplingParams
) -> None:
    engine = Engine(model, CONFIG)
    engine.start()
    for _ in range(2):
        events = await collect(engine, request("a", [3, 4, 5, 6, 7], sampling))
        assert [event.ends_request for event in events] == [False] * (len(events) - 1) + [True]
        ended = [event.index for event in events if event.finish_reason is not None]
        assert sorted(ended) == list(range(sampling.n))
    engine.stop()
    assert engine.stats().used_blocks == 0


@pytest.mark.parametrize("sampling", [CHOICES, BEAMS], ids=["choices", "beams"])
async def test_leaving_a_request_with_several_sequences_frees_all(
    model: ScriptedModel, sampling: SamplingParams
) -> None:
    engine = Engine(model, CONFIG)
    engine.start()
    model.may_run.clear()
    task = asyncio.create_task(collect(engine, request("a", [1, 2, 3], replace(sampling, max_tokens=12))))
    await asyncio.to_thread(model.in_step.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    model.may_run.set()
    await collect(engine, request("b", [1]))
    assert engine.stats().used_blocks == engine.stats().running == 0
    engine.stop()


async def test_a_choice_that_is_aborted_is_silent_and_the_last_one_ends_the_stream(
    model: ScriptedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = threading.Semaphore(0)
    monkeypatch.setattr(model.may_run, "wait", steps.acquire)
    engine = Engine(model, CONFIG)
    engine.start()

    async def finish_step() -> None:
        """And wait for the next one, which has been told what was asked for until now."""
        await asyncio.to_thread(model.in_step.wait)
        model.in_step.clear()
        steps.release()
        await asyncio.to_thread(model.in_step.wait)

    task = asyncio.create_task(collect(engine, request("a", [1, 2, 3], replace(CHOICES, max_tokens=12, n=2))))
    await finish_step()
    engine.abort("a", 0)
    engine.abort("a", 0)
    await finish_step()  # it had begun with both
    await finish_step()
    engine.abort("a", 1)
    steps.release()
    events = await task
    assert [event.index for event in events[:-1]] == [0, 1, 0, 1, 1, 1]
    assert events[-1] == TokenEvent("a", (), "abort")
    steps.release(9)
    await collect(engine, request("a", [1]))  # the id is free again
    engine.stop()
    assert engine.stats().used_blocks == 0


async def test_several_answers_share_the_room_behind_the_prompts_full_blocks(model: ScriptedModel) -> None:
    engine = Engine(model, replace(CONFIG, kv_cache_bytes=100))  # ten blocks of four tokens
    assert engine.max_new_tokens(10) == 30
    assert engine.max_new_tokens(10, 2) == 2 * 4 + 4 * 4 - 10  # two blocks shared, four for each
    assert engine.max_new_tokens(8, 4) == 8
    assert engine.max_new_tokens(9, 4) == 7
    assert engine.max_new_tokens(40, 2) <= 0
    assert engine.max_num_seqs == 4
    engine.start()
    for sampling in (replace(CHOICES, n=4, max_tokens=7), replace(BEAMS, max_tokens=10)):
        events = await collect(engine, request("a", [1] * 9 if sampling.n == 4 else [1] * 2, sampling))
        assert events[-1].ends_request
        assert events[-1].finish_reason in ("stop", "length")
    with pytest.raises(ContextLengthError, match="each of 4 answers"):
        await collect(engine, request("a", [1] * 9, replace(CHOICES, n=4, max_tokens=8)))
    with pytest.raises(InvalidValueError, match="at most 4"):
        await collect(engine, request("a", [1], replace(CHOICES, n=5)))
    assert engine.stats().preemptions == 0
    engine.stop()
