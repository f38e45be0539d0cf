"""Requests with several sequences: every answer is that of no engine at all, whoever else runs."""

import random
import time
from collections.abc import Iterator
from itertools import count

import numpy as np
import pytest
from numpy.typing import NDArray

from service.engine.beam_search import BeamSearch
from service.engine.block_manager import BlockManager
from service.engine.sampler import Sampler, SamplerState
from service.engine.sampling_params import BeamSearchParams, SamplingParams
from service.engine.scheduler import PrefixCaching, Scheduler, min_batched_tokens
from service.engine.step_loop import StepLoop
from service.engine.token_events import EngineRequest, TokenEvent
from tests.unit.engine.scripted_model import EOS, VOCAB_SIZE, DenseRunner, dense_logits, request

Answers = dict[int, list[int]]  # by choice


class Harness:
    """A loop over a dense model, its blocks counted after every step, that can lose its youngest."""

    def __init__(
        self,
        num_blocks: int = 80,
        caching: PrefixCaching = "off",
        block_size: int = 4,
        max_num_seqs: int = 8,
        budget: int = 16,
        preempt: Iterator[bool] | None = None,
    ) -> None:
        self.runner = DenseRunner(num_blocks, block_size, lambda batch: None)
        self.blocks = BlockManager(num_blocks, block_size)
        self.scheduler = Scheduler(self.blocks, max_num_seqs, budget, caching)
        self.loop = StepLoop(self.runner, self.scheduler, VOCAB_SIZE, EOS)
        self.events: dict[str, list[TokenEvent]] = {}
        self._preempt_now = preempt or (False for _ in count())

    def add(self, one: EngineRequest) -> None:
        self.events[one.request_id] = []
        self.loop.add(one)

    def step(self) -> None:
        for event in self.loop.step():
            self.events[event.request_id].append(event)
        preempt = next(self._preempt_now)
        if preempt and self.scheduler.running:
            self.scheduler.preempt_last()
        self.check()

    def check(self) -> None:
        groups = [*self.scheduler.running, *self.scheduler.waiting]
        self.blocks.check_integrity([s.block_table for group in groups for s in group.sequences])

    def drain(self) -> None:
        idle = 0
        while self.loop.has_work:
            before = self.runner.num_runs
            self.step()
            idle = 0 if self.runner.num_runs > before else idle + 1
            assert idle < 2, "work stalls"
        assert self.loop.stats.used_blocks == 0

    def answers(self, one: EngineRequest) -> Answers:
        answers: Answers = {index: [] for index in range(one.sampling.n)}
        for event in self.events[one.request_id]:
            answers[event.index] += event.token_ids
        return answers

    def ask(self, one: EngineRequest) -> Answers:
        self.add(one)
        self.drain()
        return self.answers(one)


def sampled_answers(one: EngineRequest) -> Answers:
    """Every choice drawn alone, with no engine."""
    answers: Answers = {}
    for index in range(one.sampling.n):
        state = SamplerState(one.sampling, EOS, VOCAB_SIZE, index)
        tokens: list[int] = []
        while len(tokens) < one.sampling.max_tokens:
            logits = dense_logits(np.append(one.token_ids, tokens).astype(np.int64))
            (token,) = Sampler().sample(logits[None], [state]).tolist()
            tokens.append(token)
            state.record(token)
            if token == EOS:
                break
        answers[index] = tokens
    return answers


def searched_answers(one: EngineRequest) -> Answers:
    """The search alone, with no engine."""
    sampling = one.sampling
    assert sampling.beam_search is not None
    state = SamplerState(sampling, EOS, VOCAB_SIZE)
    search = BeamSearch(sampling.beam_search, sampling.max_tokens, frozenset({EOS}))
    beams: list[NDArray[np.int64]] = [np.empty(0, dtype=np.int64)]
    while not search.is_done:
        logits = np.stack([dense_logits(np.append(one.token_ids, beam)) for beam in beams])
        log_probs = Sampler().beam_log_probs(logits, state, beams)
        assert log_probs is not None
        beams = [np.append(beams[beam.parent], beam.token_id) for beam in search.advance(log_probs)]
    return {index: list(best.token_ids) for index, best in enumerate(search.best(sampling.n))}


def expected_answers(one: EngineRequest) -> Answers:
    return sampled_answers(one) if one.sampling.beam_search is None else searched_answers(one)


def sampled(n: int, max_tokens: int = 9, seed: int = 3) -> SamplingParams:
    return SamplingParams(max_tokens, temperature=1.0, repetition_penalty=1.1, seed=seed, n=n)


def searched(num_beams: int, max_tokens: int = 9, n: int = 1) -> SamplingParams:
    search = BeamSearchParams(num_beams)
    return SamplingParams(max_tokens, repetition_penalty=1.2, n=n, beam_search=search)


@pytest.mark.parametrize("caching", ["off", "prefilled", "all"])
@pytest.mark.parametrize("num_prompt", [1, 3, 4, 5, 8, 30])
def test_choices_are_those_drawn_alone(num_prompt: int, caching: PrefixCaching) -> None:
    harness = Harness(caching=caching)
    for repeat in range(2):
        one = request(str(repeat), list(range(3, 3 + num_prompt)), sampled(4))
        assert harness.ask(one) == sampled_answers(one)
    assert len({tuple(tokens) for tokens in harness.answers(one).values()}) == 4


@pytest.mark.parametrize("caching", ["off", "prefilled", "all"])
@pytest.mark.parametrize("num_prompt", [1, 3, 4, 5, 8, 30])
def test_beams_are_those_searched_alone(num_prompt: int, caching: PrefixCaching) -> None:
    harness = Harness(caching=caching)
    for repeat in range(2):
        one = request(str(repeat), list(range(3, 3 + num_prompt)), searched(5, n=3))
        assert harness.ask(one) == searched_answers(one)


def test_the_first_choice_is_that_of_a_request_with_one() -> None:
    prompt = [5, 6, 7, 8, 9]
    alone = Harness().ask(request("a", prompt, sampled(1)))
    assert Harness().ask(request("a", prompt, sampled(3)))[0] == alone[0]


def test_choices_without_a_seed_differ() -> None:
    sampling = SamplingParams(max_tokens=9, temperature=1.5, n=4)
    answers = Harness().ask(request("a", [5, 6, 7], sampling))
    assert len({tuple(tokens) for tokens in answers.values()}) == 4


def test_the_prompt_is_computed_once_and_its_blocks_are_held_once() -> None:
    harness = Harness(budget=64)
    one = request("a", [*range(3, 23), 30, 31], sampled(4))  # five full blocks and a half
    harness.add(one)
    harness.step()
    assert harness.loop.stats.used_blocks == 6
    batch = harness.scheduler.schedule()
    assert [len(chunk.token_ids) for chunk in batch.chunks] == [1] * 4
    assert len(batch.block_copies) == 3  # the last of four has the half block to itself
    assert harness.loop.stats.used_blocks == 9


def test_events_of_choices() -> None:
    harness = Harness(caching="all")
    prompt = list(range(3, 12))
    harness.ask(request("before", prompt, sampled(1)))
    harness.ask(request("a", prompt, sampled(3)))
    events = harness.events["a"]
    assert [event.index for event in events[:3]] == [0, 1, 2]  # the first ones in order
    assert [event.num_cached_tokens for event in events] == [8] + [0] * (len(events) - 1)
    last = [event for event in events if event.finish_reason is not None]
    assert sorted(event.index for event in last) == [0, 1, 2]
    assert [event.ends_request for event in events] == [False] * (len(events) - 1) + [True]


def test_events_of_beams() -> None:
    harness = Harness(caching="all")
    prompt = list(range(3, 12))
    harness.ask(request("before", prompt, sampled(1)))
    harness.ask(request("a", prompt, searched(4, n=3)))
    events = harness.events["a"]
    assert [event.index for event in events] == [0, 1, 2]
    assert [event.num_cached_tokens for event in events] == [8, 0, 0]
    assert [event.ends_request for event in events] == [False, False, True]
    for event in events:
        assert event.finish_reason == ("stop" if event.token_ids[-1] == EOS else "length")
        assert event.stop_token_id == (EOS if event.finish_reason == "stop" else None)


@pytest.mark.parametrize("caching", ["off", "all"])
@pytest.mark.parametrize("sampling", [sampled(4, 14), searched(4, 14, n=4)], ids=["choices", "beams"])
def test_a_preempted_group_answers_the_same(sampling: SamplingParams, caching: PrefixCaching) -> None:
    """Taken back after every step but a few, wherever it was."""
    for period in (4, 5, 7):
        harness = Harness(caching=caching, budget=64, preempt=(step % period == 0 for step in count()))
        one = request("a", list(range(3, 14)), sampling)
        assert harness.ask(one) == expected_answers(one)
        assert harness.loop.stats.preemptions > 1


@pytest.mark.parametrize("steps", range(7))
@pytest.mark.parametrize("sampling", [sampled(4), searched(4, n=2)], ids=["choices", "beams"])
def test_abort_frees_every_block(sampling: SamplingParams, steps: int) -> None:
    harness = Harness(budget=11, max_num_seqs=5)
    harness.add(request("a", list(range(3, 23)), sampling))
    other = request("b", [9, 9, 9], sampled(1))
    harness.add(other)
    for _ in range(steps):
        harness.step()
    if steps == 4:
        harness.scheduler.preempt_last()
    assert harness.loop.abort("a") == [TokenEvent("a", (), "abort")]
    assert harness.loop.abort("a") == harness.loop.abort_choice("a", 1) == []
    harness.check()
    harness.drain()
    assert harness.answers(other) == sampled_answers(other)


@pytest.mark.parametrize("preempt", [False, True])
@pytest.mark.parametrize("first", [0, 1, 2])
def test_a_choice_can_be_ended_alone(first: int, preempt: bool) -> None:
    """Also the one whose prefix the others wait for."""
    harness = Harness(budget=12)
    one = request("a", list(range(3, 23)), sampled(3))
    harness.add(one)
    while len(harness.events["a"]) < 6:
        harness.step()
    if preempt:
        harness.scheduler.preempt_last()
        harness.step()
    left = [index for index in range(3) if index != first]
    assert harness.loop.abort_choice("a", first) == []
    assert harness.loop.abort_choice("a", first) == []
    harness.check()
    harness.drain()
    expected = sampled_answers(one)
    answers = harness.answers(one)
    assert [answers[index] for index in left] == [expected[index] for index in left]
    assert len(answers[first]) == 2
    assert harness.events["a"][-1].ends_request


def test_the_last_choice_to_be_ended_ends_the_request() -> None:
    harness = Harness()
    harness.add(request("a", [3, 4, 5], sampled(2)))
    harness.step()
    assert harness.loop.abort_choice("a", 0) == []
    assert harness.loop.abort_choice("a", 1) == [TokenEvent("a", (), "abort")]
    assert not harness.loop.has_work
    assert harness.loop.stats.used_blocks == 0


@pytest.mark.parametrize("preempt", [False, True])
@pytest.mark.parametrize(
    "sampling",
    [sampled(1), sampled(3), searched(3), searched(3, n=2), searched(3, 1)],
    ids=["one", "choices", "beams", "two beams", "one step"],
)
def test_the_first_event_of_all_choices_alone_has_times(sampling: SamplingParams, preempt: bool) -> None:
    harness = Harness(budget=12)
    one = request("a", list(range(3, 23)), sampling)
    times = [time.monotonic()]
    harness.add(one)
    harness.step()
    times.append(time.monotonic())
    harness.step()
    if preempt and harness.scheduler.running:
        harness.scheduler.preempt_last()
    harness.drain()
    first, *others = harness.events["a"]
    assert first.times is not None
    assert times[0] <= first.times.started_s <= times[1] <= first.times.first_token_s <= time.monotonic()
    assert all(event.times is None for event in others)
    assert harness.answers(one) == expected_answers(one)


def test_a_search_has_its_first_token_long_before_its_answer() -> None:
    harness = Harness()
    harness.add(request("a", [3, 4, 5], searched(3, 9)))
    harness.step()
    after_first = time.monotonic()
    harness.drain()
    (event,) = harness.events["a"]
    assert event.times is not None
    assert len(event.token_ids) > 1
    assert event.times.first_token_s <= after_first


@pytest.mark.parametrize("sampling", [sampled(3), searched(3)], ids=["choices", "beams"])
def test_a_row_of_nan_ends_the_whole_request_once(sampling: SamplingParams) -> None:
    harness = Harness(caching="all")
    one = request("a", list(range(10, 23)), sampling)
    harness.runner.poison = {expected_answers(one)[0][1]}
    harness.ask(one)
    events = harness.events["a"]
    assert [event.finish_reason for event in events].count("error") == 1
    assert events[-1].finish_reason == "error"
    assert events[-1].ends_request
    harness.runner.poison = set()
    again = request("b", list(range(10, 23)), sampling)
    assert harness.ask(again) == expected_answers(again)
    assert harness.events["b"][0].num_cached_tokens == 0


def test_min_tokens_hold_in_a_search() -> None:
    search = BeamSearchParams(4)
    for name in range(30):
        one = request(str(name), [3 + name, 4, 5], SamplingParams(8, min_tokens=6, n=4, beam_search=search))
        answers = Harness().ask(one)
        assert all(len(tokens) >= 7 or tokens[-1] != EOS for tokens in answers.values())


def draw_sampling(rng: random.Random, max_num_seqs: int, max_tokens: int) -> SamplingParams:
    width = rng.randint(1, max_num_seqs)
    match rng.choice(["plain", "choices", "beams"]):
        case "choices":
            return sampled(width, max_tokens, rng.randrange(1000))
        case "beams" if width > 1:
            return searched(width, max_tokens, rng.randint(1, width))
    return sampled(1, max_tokens, rng.randrange(1000))


def room(num_blocks: int, block_size: int, num_prompt: int, num_seqs: int) -> int:
    """Tokens for each answer, as Engine.max_new_tokens has it."""
    num_shared = num_prompt // block_size
    return (num_shared + (num_blocks - num_shared) // num_seqs) * block_size - num_prompt


@pytest.mark.parametrize("caching", ["off", "prefilled", "all"])
@pytest.mark.parametrize("tight", [True, False])
@pytest.mark.parametrize("seed", range(12))
def test_random_traffic_gives_everybody_the_answers_of_a_lone_run(
    seed: int, tight: bool, caching: PrefixCaching
) -> None:
    """Requests as long as just fits among them, and with preemptions at random besides those that must be."""
    rng = random.Random(seed)
    block_size, max_num_seqs = rng.choice([1, 3, 4]), rng.randint(2, 6)
    num_blocks = rng.randint(8, 14) if tight else 100
    budget = min_batched_tokens(max_num_seqs, block_size) + rng.randint(0, 20)
    preempt = (rng.random() < 0.05 for _ in count())
    harness = Harness(num_blocks, caching, block_size, max_num_seqs, budget, preempt)
    requests: list[EngineRequest] = []
    prompts: list[list[int]] = [[3, 4, 5, 6, 7]]
    while len(requests) < 25:
        for _ in range(rng.randint(0, 2)):
            prompt = rng.choice(prompts)[: rng.randint(1, 12)] + rng.choices(range(3, 9), k=rng.randint(1, 4))
            sampling = draw_sampling(rng, max_num_seqs, 1)
            most = room(num_blocks, block_size, len(prompt), sampling.num_seqs)
            if most < 1:
                continue
            max_tokens = most if most < 12 and rng.random() < 0.3 else rng.randint(1, min(most, 12))
            sampling = draw_sampling(random.Random(len(requests)), sampling.num_seqs, max_tokens)
            prompts.append(prompt)
            priority = rng.randint(-1, 1)
            requests.append(request(str(len(requests)), prompt, sampling, priority=priority))
            harness.add(requests[-1])
        harness.step()
    harness.drain()
    for one in requests:
        assert harness.answers(one) == expected_answers(one)
        assert [event.ends_request for event in harness.events[one.request_id]].count(True) == 1
