"""Whole answers from the loop without its thread, over a cache that would notice a wrong block."""

import random
import time

import numpy as np
import pytest

from service.engine.block_manager import BlockManager
from service.engine.sampling_params import SamplingParams
from service.engine.scheduler import Scheduler, min_batched_tokens
from service.engine.step_loop import StepLoop
from service.engine.token_events import TokenEvent
from tests.unit.engine.scripted_model import (
    EOS,
    VOCAB_SIZE,
    ScriptedRunner,
    greedy_answer,
    request,
)


def make_loop(
    num_blocks: int = 20, block_size: int = 4, max_num_seqs: int = 4, budget: int = 16
) -> tuple[StepLoop, ScriptedRunner]:
    runner = ScriptedRunner(num_blocks, block_size, lambda batch: None)
    scheduler = Scheduler(BlockManager(num_blocks, block_size), max_num_seqs, budget)
    return StepLoop(runner, scheduler, VOCAB_SIZE, EOS), runner


def drain(loop: StepLoop) -> list[TokenEvent]:
    events = []
    while loop.has_work:
        events += loop.step()
    return events


def tokens_of(events: list[TokenEvent], request_id: str) -> list[int]:
    return [token for event in events if event.request_id == request_id for token in event.token_ids]


@pytest.mark.parametrize("seed", range(25))
def test_random_traffic_gives_everybody_the_answer_of_a_lone_run(seed: int) -> None:
    rng = random.Random(seed)
    block_size, max_num_seqs, num_blocks = rng.choice([1, 4, 5]), rng.randint(1, 5), rng.randint(6, 16)
    budget = min_batched_tokens(max_num_seqs, block_size) + rng.randint(0, 20)
    loop, _ = make_loop(num_blocks, block_size, max_num_seqs, budget)
    capacity = num_blocks * block_size
    expected: dict[str, list[int]] = {}
    events: list[TokenEvent] = []
    while len(expected) < 15:
        for _ in range(rng.randint(0, 2)):
            num_prompt = rng.randint(1, capacity - 1)
            max_tokens = rng.randint(1, capacity - num_prompt)
            prompt = [rng.randrange(VOCAB_SIZE) for _ in range(num_prompt)]
            name = str(len(expected))
            expected[name] = greedy_answer(np.array(prompt), max_tokens)
            sampling = SamplingParams(max_tokens=max_tokens)
            loop.add(request(name, prompt, sampling, priority=rng.randint(-1, 1)))
        events += loop.step()
    events += drain(loop)
    for name, answer in expected.items():
        assert tokens_of(events, name) == answer
        assert [e.finish_reason for e in events if e.request_id == name].count("length") == 1
    assert loop.stats.used_blocks == loop.stats.running == loop.stats.waiting == 0


def test_preemption_keeps_sampled_answers() -> None:
    sampling = SamplingParams(max_tokens=18, temperature=8.0, frequency_penalty=1.0, seed=11)
    answers = {}
    for num_blocks in (60, 7):
        loop, _ = make_loop(num_blocks)
        for name in "abcd":
            loop.add(request(name, [5, 6, 7, 8], sampling))
        events = drain(loop)
        answers[num_blocks] = [tokens_of(events, name) for name in "abcd"]
        assert (loop.stats.preemptions > 0) == (num_blocks == 7)
    assert answers[7] == answers[60]
    assert len(set(answers[60][0])) > 3


def test_eos_and_stop_ids_end_a_sequence_and_are_named() -> None:
    answer = greedy_answer(np.array([9, 9, 9]), 6)
    stop = next(token for token in answer if answer.count(token) == 1)
    upto = answer[: answer.index(stop) + 1]
    for eos, stop_ids in ((stop, frozenset[int]()), (EOS, frozenset({stop}))):
        runner = ScriptedRunner(20, 4, lambda batch: None)
        loop = StepLoop(runner, Scheduler(BlockManager(20, 4), 4, 16), VOCAB_SIZE, eos)
        loop.add(request("a", [9, 9, 9], SamplingParams(max_tokens=6, stop_token_ids=stop_ids)))
        events = drain(loop)
        assert tokens_of(events, "a") == upto
        assert events[-1] == TokenEvent("a", (stop,), "stop", stop)
        assert all(event.finish_reason is None for event in events[:-1])


def test_ignore_eos_goes_on_but_stop_ids_still_stop() -> None:
    answer = greedy_answer(np.array([9, 9, 9]), 6)
    runner = ScriptedRunner(20, 4, lambda batch: None)
    loop = StepLoop(runner, Scheduler(BlockManager(20, 4), 4, 16), VOCAB_SIZE, answer[0])
    loop.add(request("a", [9, 9, 9], SamplingParams(max_tokens=6, ignore_eos=True)))
    loop.add(
        request(
            "b",
            [9, 9, 9],
            SamplingParams(max_tokens=6, ignore_eos=True, stop_token_ids=frozenset({answer[1]})),
        )
    )
    events = drain(loop)
    assert tokens_of(events, "a") == answer
    assert tokens_of(events, "b") == answer[:2]


def test_a_row_of_nan_ends_its_request_only() -> None:
    loop, runner = make_loop()
    good, bad = greedy_answer(np.array([3, 4]), 5), greedy_answer(np.array([6, 5, 4]), 5)
    poison = next(token for token in bad if token not in good)
    runner.poison = {poison}
    loop.add(request("good", [3, 4]))
    loop.add(request("bad", [6, 5, 4]))
    events = drain(loop)
    assert tokens_of(events, "good") == good
    assert tokens_of(events, "bad") == bad[: bad.index(poison)]
    assert [e for e in events if e.request_id == "bad"][-1] == TokenEvent("bad", (), "error")
    assert loop.stats.used_blocks == 0


def test_abort_frees_waiting_and_running_alike() -> None:
    loop, _ = make_loop(max_num_seqs=1)
    for name in ("running", "waiting"):
        loop.add(request(name, [1, 2, 3, 4, 5]))
    loop.step()
    assert (loop.stats.running, loop.stats.waiting) == (1, 1)
    assert loop.abort("waiting") == [TokenEvent("waiting", (), "abort")]
    assert loop.abort("running") == [TokenEvent("running", (), "abort")]
    assert loop.abort("running") == []
    assert not loop.has_work
    assert loop.stats.used_blocks == 0


def test_the_first_event_alone_tells_when_its_request_began() -> None:
    loop = StepLoop(
        ScriptedRunner(20, 4, lambda batch: None), Scheduler(BlockManager(20, 4), 4, 16), VOCAB_SIZE, EOS
    )
    before = time.monotonic()
    loop.add(request("a", [9, 9, 9], SamplingParams(max_tokens=4)))
    first, *others = drain(loop)
    assert first.times is not None
    assert before <= first.times.started_s <= first.times.first_token_s <= time.monotonic()
    assert others
    assert all(event.times is None for event in others)
