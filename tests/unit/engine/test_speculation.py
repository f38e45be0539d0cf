"""Guessing changes how many steps an answer takes, and nothing else."""

import asyncio
import logging
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from numpy.typing import NDArray

from service.engine.block_manager import BlockManager
from service.engine.engine import Engine, EngineConfig
from service.engine.sampling_params import BeamSearchParams, SamplingParams
from service.engine.scheduler import PrefixCaching, Scheduler, min_batched_tokens
from service.engine.step_loop import StepLoop
from service.engine.token_events import EngineRequest, TokenEvent
from tests.unit.engine.grammars import schema
from tests.unit.engine.scripted_model import (
    EOS,
    VOCAB_SIZE,
    ScriptedModel,
    ScriptedRunner,
    dense_logits,
    next_token,
    request,
)

PERIOD = 6


def repeating_logits(context: NDArray[np.int64]) -> NDArray[np.float32]:
    """Nearly always what stood PERIOD tokens before is the likeliest; several others have a chance."""
    logits = dense_logits(context)
    if len(context) >= PERIOD and next_token(context) % 8:
        logits[context[-PERIOD] % VOCAB_SIZE] += 12  # a quantised cache holds a token and a multiple of that
    return logits


class RepeatingRunner(ScriptedRunner):
    def _logits_after(self, context: NDArray[np.int64]) -> NDArray[np.float32]:
        logits = repeating_logits(context)
        if int(context[-1]) in self.poison:
            logits[7] = np.nan
        return logits


class Harness:
    """A step loop whose blocks are counted after every step."""

    def __init__(
        self,
        num_guessed: int,
        num_blocks: int = 60,
        block_size: int = 4,
        max_num_seqs: int = 4,
        budget: int = 40,
        caching: PrefixCaching = "off",
        quantises: bool = False,
    ) -> None:
        self.runner = RepeatingRunner(num_blocks, block_size, lambda batch: None, quantises)
        self.blocks = BlockManager(num_blocks, block_size)
        self.scheduler = Scheduler(self.blocks, max_num_seqs, budget, caching, num_guessed)
        self.loop = StepLoop(self.runner, self.scheduler, VOCAB_SIZE, EOS)
        self.events: dict[str, list[TokenEvent]] = {}

    def add(self, one: EngineRequest) -> None:
        self.events[one.request_id] = []
        self.loop.add(one)

    def step(self) -> None:
        for event in self.loop.step():
            self.events[event.request_id].append(event)
        groups = [*self.scheduler.running, *self.scheduler.waiting]
        tables = [sequence.block_table for group in groups for sequence in group.sequences]
        self.blocks.check_integrity(tables)

    def drain(self) -> None:
        while self.loop.has_work:
            self.step()


Answer = dict[int, tuple[object, ...]]


def answer_of(events: Sequence[TokenEvent]) -> Answer:
    """By choice, all that a client could tell from its events, however many they are."""
    answer: Answer = {}
    for index in {event.index for event in events}:
        own = [event for event in events if event.index == index]
        tokens = tuple(token for event in own for token in event.token_ids)
        logprobs = tuple(one for event in own for one in event.logprobs)
        assert all(event.finish_reason is None for event in own[:-1])
        answer[index] = (tokens, logprobs, own[-1].finish_reason, own[-1].stop_token_id)
    return answer


def alone(one: EngineRequest) -> Answer:
    plain = Harness(0, num_blocks=200)
    plain.add(one)
    plain.drain()
    assert plain.loop.stats.guessed_tokens == 0
    return answer_of(plain.events[one.request_id])


def random_sampling(rng: random.Random, max_tokens: int) -> SamplingParams:
    """Greedy ones of every kind, and some that guessing must leave alone."""
    greedy = SamplingParams(
        max_tokens,
        repetition_penalty=rng.choice([1.0, 1.0, 1.4]),
        frequency_penalty=rng.choice([0.0, 0.0, 0.9]),
        presence_penalty=rng.choice([0.0, 0.0, 2.0]),
        min_tokens=rng.choice([0, 0, 5]),
        stop_token_ids=frozenset(rng.choices(range(3, VOCAB_SIZE), k=rng.choice([0, 0, 3]))),
        ignore_eos=rng.random() < 0.3,
        logprobs=rng.choice([None, None, 0, 2]),
    )
    kind = rng.random()
    if kind < 0.15:
        return replace(greedy, temperature=1.0, seed=rng.randrange(100))
    if kind < 0.25:
        return replace(greedy, n=2)
    if kind < 0.35:
        return SamplingParams(max_tokens, beam_search=BeamSearchParams(2))
    return greedy


@pytest.mark.parametrize("seed", range(40))
def test_random_traffic_gives_everybody_the_answer_of_a_plain_lone_run(seed: int) -> None:
    rng = random.Random(seed)
    block_size, max_num_seqs = rng.choice([1, 4, 5]), rng.randint(2, 5)
    num_blocks = rng.randint(50, 80) // block_size
    budget = min_batched_tokens(max_num_seqs, block_size) + rng.randint(0, 30)
    caching = rng.choice(get_args(PrefixCaching))
    harness = Harness(rng.randint(1, 9), num_blocks, block_size, max_num_seqs, budget, caching)
    requests: list[EngineRequest] = []
    room = num_blocks * block_size
    while len(requests) < 15 or harness.loop.has_work:
        for _ in range(rng.randint(0, 2) if len(requests) < 15 else 0):
            num_prompt = rng.randint(1, room // 2 - 8)
            tokens = [rng.randrange(3, 12) for _ in range(num_prompt)]
            if requests and rng.random() < 0.5:  # what prefix caching finds
                tokens = (requests[-1].token_ids.tolist() + tokens)[: room // 2 - 8]
            sampling = random_sampling(rng, rng.randint(1, room // 2 - num_prompt // 2 - 8))
            sampling = replace(sampling, max_tokens=min(sampling.max_tokens, room // 2 - len(tokens)))
            one = request(str(len(requests)), tokens, sampling)
            requests.append(replace(one, priority=rng.choice([0, 0, 0, -1])))
            harness.add(requests[-1])
        harness.step()
        if harness.scheduler.running and rng.random() < 0.05:
            harness.scheduler.preempt_last()
    for one in requests:
        assert answer_of(harness.events[one.request_id]) == alone(one), one
    assert harness.loop.stats.used_blocks == 0
    assert harness.loop.stats.guessed_tokens > 0


def test_an_answer_that_repeats_takes_fewer_steps() -> None:
    one = request("a", [10, 11, 12, 13, 14, 15] * 2, SamplingParams(60))
    plain, guessing = Harness(0), Harness(5)
    for harness in (plain, guessing):
        harness.add(one)
        harness.drain()
    assert answer_of(guessing.events["a"]) == answer_of(plain.events["a"])
    stats = guessing.loop.stats
    assert stats.accepted_tokens == plain.runner.num_runs - guessing.runner.num_runs
    assert guessing.runner.num_runs < plain.runner.num_runs / 2
    assert stats.guessed_tokens > stats.accepted_tokens > 30
    assert max(len(event.token_ids) for event in guessing.events["a"]) == 6  # the guess and one more


def next_turns_differ_from_alone(seed: int, caching: PrefixCaching) -> bool:
    """First tokens after a guessed answer, over a cache whose bits depend on how they came there."""
    rng = random.Random(seed)
    harness = Harness(rng.randint(2, 9), 200, caching=caching, quantises=True)
    prompt = [rng.randrange(3, 12) for _ in range(rng.randint(8, 25))]
    differ = False
    for turn in range(4):
        harness.add(request(f"answer {turn}", prompt, SamplingParams(rng.randint(10, 30), ignore_eos=True)))
        harness.drain()
        (tokens, *_), *_ = answer_of(harness.events[f"answer {turn}"]).values()
        assert isinstance(tokens, tuple)
        prompt = [*prompt, *tokens, rng.randrange(3, VOCAB_SIZE)]
        one = request(f"next {turn}", prompt, SamplingParams(1, logprobs=5))
        alone = Harness(0, 200, quantises=True)
        for each in (harness, alone):
            each.add(one)
            each.drain()
        differ |= answer_of(harness.events[one.request_id]) != answer_of(alone.events[one.request_id])
    assert harness.loop.stats.prefix_cache_hits > 0
    assert harness.loop.stats.accepted_tokens > 0
    return differ


def test_a_quantised_cache_shares_nothing_that_a_guess_has_touched() -> None:
    assert not any(next_turns_differ_from_alone(seed, "prefilled") for seed in range(20))
    assert any(next_turns_differ_from_alone(seed, "all") for seed in range(20))


def test_guesses_give_way_to_prefills_and_never_preempt() -> None:
    """With just the blocks that two answers need, and a step of just a prefill beside a decode."""
    one = request("a", [10, 11, 12, 13, 14, 15] * 2, SamplingParams(20))
    tight = Harness(5, num_blocks=16, max_num_seqs=2, budget=5)
    tight.add(one)
    for _ in range(4):
        tight.step()
    tight.add(request("b", list(range(3, 23)), SamplingParams(12)))
    num_guessed = tight.loop.stats.guessed_tokens
    for _ in range(5):  # b's prefill takes all that a's decode leaves
        tight.step()
        assert tight.loop.stats.guessed_tokens == num_guessed
    tight.drain()
    assert answer_of(tight.events["a"]) == alone(one)
    assert tight.loop.stats.preemptions == 0
    assert tight.loop.stats.accepted_tokens > 0


def test_a_guess_stays_within_the_blocks_there_are() -> None:
    harness = Harness(9, num_blocks=8)  # all of them for 12 + 20 tokens
    one = request("a", [10, 11, 12, 13, 14, 15] * 2, SamplingParams(20))
    harness.add(one)
    blocks, other = harness.blocks, harness.blocks.new_table(32)
    while harness.loop.has_work:
        for group in harness.scheduler.running:  # somebody has all blocks but the one the next token needs
            (sequence,) = group.sequences
            num_needed = blocks.blocks_for(sequence.num_tokens) - len(sequence.block_table)
            blocks.grow(other, (blocks.num_free - max(num_needed, 0)) * blocks.block_size)
        for event in harness.loop.step():
            harness.events["a"].append(event)
            assert len(event.token_ids) <= blocks.block_size
        blocks.release(other)
    assert answer_of(harness.events["a"]) == alone(one)
    assert harness.loop.stats.accepted_tokens > 0
    assert harness.loop.stats.preemptions == 0


def test_rows_that_are_not_finite_count_only_where_they_are_reached() -> None:
    prompt = [10, 11, 12, 13, 14, 15] * 2
    (tokens, *_), *_ = alone(request("a", prompt, SamplingParams(40))).values()
    assert isinstance(tokens, tuple)
    guessing = Harness(5)
    guessing.runner.poison = {tokens[20]}
    guessing.add(request("a", prompt, SamplingParams(40)))
    guessing.add(request("b", [30, 31, 32, 33], SamplingParams(3)))
    guessing.drain()
    *before, last = guessing.events["a"]
    reached = tokens[: tokens.index(tokens[20]) + 1]
    assert tuple(token for event in before for token in event.token_ids) == reached
    assert last == TokenEvent("a", (), "error", num_cached_tokens=0 if before else last.num_cached_tokens)
    assert guessing.events["b"][-1].finish_reason == "length"
    assert guessing.loop.stats.used_blocks == 0


class RepeatingModel(ScriptedModel):
    block_bytes = 1

    def new_runner(self, num_blocks: int, max_num_seqs: int, max_num_batched_tokens: int) -> ScriptedRunner:
        self.runner = RepeatingRunner(num_blocks, self.block_size, self._on_run)
        return self.runner


@pytest.mark.parametrize("is_paged", [True, False])
async def test_the_engine_counts_and_logs_what_came_of_guesses(
    is_paged: bool, caplog: pytest.LogCaptureFixture
) -> None:
    model = RepeatingModel()
    model.is_paged = is_paged  # a stateful one cannot take back what it has seen
    engine = Engine(model, EngineConfig(200, EOS, 60, 4, 40, num_speculative_tokens=4))
    one = request("a", [10, 11, 12, 13, 14, 15] * 2, SamplingParams(60))
    engine.start()
    events = [event async for event in engine.stream(one)]
    with caplog.at_level(logging.INFO):
        await asyncio.to_thread(engine.stop)
    assert answer_of(events) == alone(one)
    stats = engine.stats()
    assert (stats.accepted_tokens > 0) == is_paged
    share = round(100 * stats.accepted_tokens / max(stats.guessed_tokens, 1))
    counts = f"{stats.accepted_tokens} of {stats.guessed_tokens}"
    assert caplog.messages == [f"speculation: {counts} guessed tokens accepted ({share} %)"] * is_paged


def test_guesses_follow_a_grammar_as_plain_answers_do() -> None:
    """Each token's mask is that of the tokens before it, guessed or not."""
    constraint = schema(type="array", items={"type": "boolean"}, minItems=4)
    num_accepted = 0
    for seed in range(12):
        prompt = np.random.default_rng(seed).integers(3, 40, 8).tolist()
        one = replace(
            request("a", [*prompt, *prompt], SamplingParams(40, logprobs=1 + seed % 2)), constraint=constraint
        )
        guessing = Harness(5)
        guessing.add(one)
        guessing.drain()
        assert answer_of(guessing.events["a"]) == alone(one)
        num_accepted += guessing.loop.stats.accepted_tokens
    assert num_accepted > 0
