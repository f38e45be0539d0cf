"""What is shared and what never is: answers over a cache that would notice a wrong block or image."""

import random
from dataclasses import replace

import numpy as np
import pytest

from service.engine.block_manager import BlockManager
from service.engine.engine import Engine, EngineConfig
from service.engine.sampling_params import SamplingParams
from service.engine.scheduler import PrefixCaching, Scheduler, min_batched_tokens
from service.engine.step_loop import EngineStats, StepLoop
from service.engine.token_events import EngineRequest, ImageSpan, TokenEvent
from tests.unit.engine.scripted_model import (
    EOS,
    VOCAB_SIZE,
    ScriptedModel,
    ScriptedRunner,
    greedy_answer,
    image_span,
    request,
    visible,
)

PAD = 0


class Harness:
    """A step loop whose blocks are counted after every step."""

    def __init__(
        self,
        num_blocks: int = 60,
        caching: PrefixCaching = "all",
        block_size: int = 4,
        max_num_seqs: int = 4,
        budget: int = 16,
        quantises: bool = False,
    ) -> None:
        self.runner = ScriptedRunner(num_blocks, block_size, lambda batch: None, quantises)
        blocks = BlockManager(num_blocks, block_size)
        self.scheduler = Scheduler(blocks, max_num_seqs, budget, caching)
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
        self.scheduler.block_manager.check_integrity(tables)

    def drain(self) -> None:
        while self.loop.has_work:
            self.step()

    def tokens(self, request_id: str) -> list[int]:
        return [token for event in self.events[request_id] for token in event.token_ids]

    def num_cached(self, request_id: str) -> int:
        """As the first event says; no other says anything."""
        first, *others = self.events[request_id]
        assert all(event.num_cached_tokens == 0 for event in others)
        return first.num_cached_tokens

    def ask(self, one: EngineRequest) -> int:
        """Run alone, hold the answer against that of no engine at all; how many tokens were cached."""
        self.add(one)
        self.drain()
        assert self.tokens(one.request_id) == greedy_answer(visible(one), one.sampling.max_tokens)
        return self.num_cached(one.request_id)


def image_request(name: str, *spans: ImageSpan, question: tuple[int, ...] = (20, 21, 22)) -> EngineRequest:
    """One text token, the slots with one token between two spans, the question."""
    end = max(span.start + len(span.embeddings) for span in spans)
    prompt = [3] * end
    for span in spans:
        prompt[span.start : span.start + len(span.embeddings)] = [PAD] * len(span.embeddings)
    return request(name, [*prompt, *question], image_spans=spans)


# Layout of two slices in blocks of 4: text 0 | slots 1-6 | text 7 | slots 8-13 | question 14-16
OVERVIEW, SLICE = image_span(1, b"overview"), image_span(8, b"slice")


def test_the_same_prompt_is_found_again_but_for_its_last_token() -> None:
    harness = Harness()
    assert harness.ask(request("a", list(range(3, 12)))) == 0
    assert harness.ask(request("b", list(range(3, 12)))) == 8  # nine tokens: two blocks and one to run
    assert harness.ask(request("c", list(range(3, 11)))) == 4  # eight tokens: the second block would be all
    assert harness.ask(request("d", [3])) == 0


def test_image_prompts_are_found_again() -> None:
    harness = Harness()
    assert harness.ask(image_request("a", OVERVIEW, SLICE)) == 0
    assert harness.ask(image_request("b", OVERVIEW, SLICE)) == 16
    assert harness.ask(image_request("c", OVERVIEW, SLICE, question=(30, 31))) == 12


def test_same_text_with_another_image() -> None:
    harness = Harness()
    harness.ask(image_request("a", image_span(1, b"cat")))
    assert harness.ask(image_request("b", image_span(1, b"dog"))) == 0
    assert harness.tokens("a") != harness.tokens("b")
    assert harness.ask(request("c", [3, *[PAD] * 6, 20, 21, 22])) == 0  # pads that are no image


def test_one_pixel_changed() -> None:
    """In the second slice only: everything before the block in which it begins is found."""
    harness = Harness()
    harness.ask(image_request("a", OVERVIEW, SLICE))
    changed = image_span(8, b"slicf")
    assert harness.ask(image_request("b", OVERVIEW, changed)) == 8
    assert harness.ask(image_request("c", image_span(1, b"overviex"), SLICE)) == 0


def test_same_image_with_another_slicing() -> None:
    harness = Harness()
    harness.ask(image_request("a", OVERVIEW, SLICE, image_span(15, b"other slice")))
    assert harness.ask(image_request("b", OVERVIEW, image_span(8, b"wide"))) == 8  # the overview is the same
    swapped = image_span(8, b"other slice"), image_span(15, b"slice")
    assert harness.ask(image_request("c", OVERVIEW, *swapped)) == 8
    shorter = image_span(1, b"overview", 5), image_span(7, b"slice")
    assert harness.ask(image_request("d", *shorter)) == 4  # five slots of the overview, as far as they go
    assert harness.ask(image_request("e", image_span(2, b"overview"), SLICE)) == 0


def test_same_slice_in_two_images() -> None:
    """Shared after an equal beginning only: elsewhere it has seen something else."""
    harness = Harness()
    sky = image_span(8, b"sky")
    harness.ask(image_request("a", image_span(1, b"beach"), sky))
    assert harness.ask(image_request("b", image_span(1, b"forest"), sky)) == 0
    harness.ask(image_request("c", image_span(1, b"sky")))
    first_slice = image_span(1, b"sky"), image_span(8, b"ground")
    assert harness.ask(image_request("d", *first_slice)) == 4  # then the text between differs
    assert harness.ask(image_request("e", *first_slice)) == 16


def test_salts_are_strangers_to_one_another() -> None:
    harness = Harness()
    prompt = list(range(3, 20))
    for index, salt in enumerate((b"", b"alice", b"bob")):
        assert harness.ask(request(f"{index} first", prompt, cache_salt=salt)) == 0
        assert harness.ask(request(f"{index} again", prompt, cache_salt=salt)) == 16


def test_a_next_turn_finds_prompt_and_answer() -> None:
    harness = Harness()
    spans = (OVERVIEW, SLICE)
    turn = image_request("0", *spans)
    assert harness.ask(turn) == 0
    for index in range(1, 4):
        computed = len(turn.token_ids) + 4  # the last of five tokens never ran
        prompt = [*turn.token_ids.tolist(), *harness.tokens(str(index - 1)), 20 + index, 30]
        turn = request(str(index), prompt, image_spans=spans)
        assert harness.ask(turn) == computed // 4 * 4


def test_eviction_takes_the_longest_unused_and_the_end_of_a_prompt_first() -> None:
    harness = Harness(num_blocks=8)
    sampling = SamplingParams(max_tokens=1)
    prompts = {name: [index] * 12 for index, name in enumerate("abc", 10)}
    for name in "ab":
        harness.ask(request(name, prompts[name], sampling))
    assert harness.ask(request("a 2", [*prompts["a"], 3], sampling)) == 12
    # Each keeps three blocks of the eight. The next three are the two that are left and the end of b's,
    harness.ask(request("c", prompts["c"], sampling))
    assert harness.ask(request("a 3", [*prompts["a"], 3], sampling)) == 12  # its fourth: the middle of b's
    assert harness.ask(request("b 2", prompts["b"], sampling)) == 4


def test_a_flood_leaves_nothing_and_hurts_nobody() -> None:
    harness = Harness(num_blocks=5)
    prompt = list(range(3, 16))
    assert harness.ask(request("a", prompt)) == 0
    assert harness.ask(request("b", prompt)) == 12
    for index in range(5):
        assert harness.ask(request(str(index), [30 + index] * 15)) == 0
    assert harness.ask(request("c", prompt)) == 0


def test_a_prompt_that_fills_the_cache_is_admitted_over_its_own_blocks() -> None:
    harness = Harness(num_blocks=4)
    prompt, sampling = list(range(3, 18)), SamplingParams(max_tokens=1)
    assert [harness.ask(request(name, prompt, sampling)) for name in "ab"] == [0, 12]


def test_a_running_prompt_is_shared_and_survives_its_owner() -> None:
    harness = Harness()
    prompt = list(range(3, 19))
    harness.add(request("a", prompt, SamplingParams(max_tokens=2)))
    harness.step()
    harness.add(request("b", [*prompt, 40], SamplingParams(max_tokens=9)))
    harness.step()  # the last of a, the first of b
    assert not harness.loop.abort("a")
    assert harness.loop.stats.used_blocks == 5
    harness.drain()
    assert harness.num_cached("b") == 16
    assert harness.tokens("b") == greedy_answer(np.array([*prompt, 40]), 9)


def test_two_that_compute_the_same_at_once_keep_a_copy_each() -> None:
    harness = Harness(budget=32)
    prompt = list(range(3, 16))
    for name in "ab":
        harness.add(request(name, prompt))
    harness.step()
    assert harness.loop.stats.used_blocks == 8
    harness.drain()
    assert [harness.num_cached(name) for name in "ab"] == [0, 0]
    assert harness.tokens("a") == harness.tokens("b") == greedy_answer(np.array(prompt), 5)
    assert harness.ask(request("c", prompt)) == 12


def test_a_preempted_sequence_finds_its_own_blocks() -> None:
    harness = Harness()
    prompt = list(range(3, 13))
    harness.ask(request("before", prompt[:5]))
    harness.add(request("a", prompt, SamplingParams(max_tokens=9)))
    for _ in range(4):
        harness.step()
    victim = harness.scheduler.preempt_last()
    (sequence,) = victim.sequences
    assert sequence.num_tokens == 14
    harness.step()
    assert sequence.num_computed_tokens == 14  # 12 of them were found
    assert harness.loop.stats.prefix_cache_queries == 5 + 10  # a preemption asks for nothing new
    harness.drain()
    assert harness.num_cached("a") == 4
    assert harness.tokens("a") == greedy_answer(np.array(prompt), 9)


def test_what_was_preempted_in_its_prefill_goes_on_where_it_was() -> None:
    harness = Harness(budget=8)
    harness.add(request("a", list(range(3, 33))))
    harness.step()
    victim = harness.scheduler.preempt_last()
    batch = harness.scheduler.schedule()
    assert [(chunk.past_len, len(chunk.token_ids)) for chunk in batch.chunks] == [(8, 8)]
    assert victim.num_cached_tokens == 0  # at first admission


def test_a_broken_row_leaves_nothing_to_be_found() -> None:
    harness = Harness()
    prompt = list(range(3, 16))
    answer = greedy_answer(np.array(prompt), 5)
    harness.runner.poison = {answer[2]}
    harness.add(request("bad", prompt))
    harness.drain()
    assert harness.events["bad"][-1].finish_reason == "error"
    harness.runner.poison = set()
    assert harness.ask(request("good", prompt)) == 0


def random_request(
    rng: random.Random, name: str, earlier: list[EngineRequest], capacity: int
) -> EngineRequest:
    """Mostly a few tokens after some part of an earlier request, seen with the same images or without."""
    prompt: list[int] = []
    spans: tuple[ImageSpan, ...] = ()
    if earlier and rng.random() < 0.7:
        model = rng.choice(earlier)
        prompt = model.token_ids.tolist()[: rng.randint(1, len(model.token_ids))]
        spans = model.image_spans
    elif capacity > 16 and rng.random() < 0.7:
        spans = tuple(image_span(start, rng.choice([b"cat", b"dog"])) for start in (1, 8))
        prompt = [3, *[PAD] * 6, 4, *[PAD] * 6]
    prompt = (prompt + [rng.randrange(VOCAB_SIZE) for _ in range(rng.randint(1, 5))])[: capacity - 1]
    spans = tuple(span for span in spans if span.start + len(span.embeddings) <= len(prompt))
    sampling = SamplingParams(max_tokens=rng.randint(1, min(12, capacity - len(prompt))))
    return request(name, prompt, sampling, spans, rng.choice([b"", b"", b"salt"]))


@pytest.mark.parametrize("caching", ["off", "prefilled", "all"])
@pytest.mark.parametrize("num_blocks", [6, 12, 200], ids=["full", "tight", "ample"])
@pytest.mark.parametrize("seed", range(6))
def test_random_traffic_has_the_same_answers_with_any_cache(
    seed: int, num_blocks: int, caching: PrefixCaching
) -> None:
    rng = random.Random(seed)
    block_size, max_num_seqs = rng.choice([1, 4, 5]) if num_blocks > 6 else 4, rng.randint(1, 5)
    budget = min_batched_tokens(max_num_seqs, block_size) + rng.randint(0, 20)
    harness = Harness(num_blocks, caching, block_size, max_num_seqs, budget)
    requests: list[EngineRequest] = []
    while len(requests) < 40:
        for _ in range(rng.randint(0, 2)):
            capacity = min(num_blocks * block_size, 60)
            requests.append(random_request(rng, str(len(requests)), requests, capacity))
            harness.add(requests[-1])
        harness.step()
    harness.drain()
    for one in requests:
        assert harness.tokens(one.request_id) == greedy_answer(visible(one), one.sampling.max_tokens)
    stats = harness.loop.stats
    assert stats.used_blocks == 0
    assert stats.prefix_cache_hits == sum(harness.num_cached(one.request_id) for one in requests)
    if caching == "off":
        assert stats.prefix_cache_queries == stats.prefix_cache_hits == 0
    else:
        assert stats.prefix_cache_queries == sum(len(one.token_ids) for one in requests)
        assert stats.prefix_cache_hits > 0


def turns_differ_from_alone(seed: int, caching: PrefixCaching) -> bool:
    """Conversations over a cache whose bits depend on how they came there; each turn also with no cache."""
    rng = random.Random(seed)
    cached = Harness(400, caching, quantises=True)
    prompt = [rng.randrange(3, VOCAB_SIZE) for _ in range(rng.randint(1, 20))]
    num_hits, differ = 0, False
    for index in range(6):
        turn = request(str(index), prompt, SamplingParams(max_tokens=rng.randint(1, 12)))
        alone = Harness(400, "off", quantises=True, budget=rng.choice([16, 100]))
        for harness in (cached, alone):
            harness.add(turn)
            harness.drain()
        num_hits += cached.num_cached(str(index))
        differ |= cached.tokens(str(index)) != alone.tokens(str(index))
        prompt = [*prompt, *alone.tokens(str(index)), rng.randrange(3, VOCAB_SIZE)]
    assert num_hits > 0
    return differ


def test_a_quantised_cache_shares_only_what_a_lone_run_would_hold() -> None:
    assert not any(turns_differ_from_alone(seed, "prefilled") for seed in range(20))
    assert any(turns_differ_from_alone(seed, "all") for seed in range(20))


CONFIG = EngineConfig(
    max_position_embeddings=64,
    eos_token_id=EOS,
    kv_cache_bytes=200,
    max_num_seqs=4,
    max_num_batched_tokens=16,
)


async def ask_engine(engine: Engine, prompt: list[int]) -> list[TokenEvent]:
    return [event async for event in engine.stream(request("a", prompt))]


@pytest.mark.parametrize(
    ("enabled", "quantises", "num_found"), [(True, False, 12), (True, True, 8), (False, False, 0)]
)
async def test_the_engine_caches_as_configured_and_says_so(
    enabled: bool, quantises: bool, num_found: int
) -> None:
    model = ScriptedModel()
    model.quantises_kv_cache = quantises
    engine = Engine(model, replace(CONFIG, enable_prefix_caching=enabled))
    engine.start()
    prompt = list(range(3, 13))
    answer = greedy_answer(np.array(prompt), 5)
    await ask_engine(engine, prompt)
    events = await ask_engine(engine, [*prompt, *answer[:4]])  # of its third block, two tokens were decoded
    assert [event.num_cached_tokens for event in events] == [num_found, 0, 0, 0, 0]
    engine.stop()
    assert engine.stats() == EngineStats(0, 0, 0, 20, 0, 24 if enabled else 0, num_found)
