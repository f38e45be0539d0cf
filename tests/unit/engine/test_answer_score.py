"""Holding an answer against a runner's logits."""

import numpy as np
import pytest

from service.engine.answer_score import score_answer
from service.engine.engine import Engine, EngineConfig
from service.engine.token_events import EngineRequest
from service.errors import ContextLengthError
from service.generation.golden_check import find_mismatch
from tests.unit.engine.scripted_model import (
    EOS,
    ScriptedModel,
    ScriptedRunner,
    greedy_answer,
    image_span,
    request,
    visible,
)

REQUEST = request("a", [5, 0, 0, 0, 0, 0, 0, 8, 9], image_spans=(image_span(1, b"cat"),))


def _runner() -> ScriptedRunner:
    return ScriptedRunner(20, 4, lambda batch: None)


def _answer(one: EngineRequest = REQUEST, num_tokens: int = 6) -> list[int]:
    return greedy_answer(visible(one), num_tokens)


@pytest.mark.parametrize("budget", [4, 7, 8, 100])
def test_the_models_own_answer_has_no_gap(budget: int) -> None:
    scores = score_answer(_runner(), 4, budget, REQUEST, _answer())
    assert [score.token_id for score in scores] == [score.best_id for score in scores] == _answer()
    assert {score.gap for score in scores} == {0.0}
    assert find_mismatch(scores, 0.0) is None


def test_the_first_other_token_is_found_and_the_rest_judged_after_it() -> None:
    answer = _answer()
    answer[2] = 3 if answer[2] != 3 else 4
    scores = score_answer(_runner(), 4, 100, REQUEST, answer)
    mismatch = find_mismatch(scores, 0.25)
    assert mismatch is not None
    assert (mismatch.position, mismatch.score.token_id, mismatch.score.best_id) == (
        2,
        answer[2],
        _answer()[2],
    )
    assert mismatch.score.gap > 1
    after = np.append(visible(REQUEST), answer[:3])
    assert scores[3].best_id == greedy_answer(after, 1)[0]


def test_logits_that_are_not_finite_match_nothing() -> None:
    runner = _runner()
    runner.poison = {_answer()[1]}
    scores = score_answer(runner, 4, 100, REQUEST, _answer())
    mismatch = find_mismatch(scores, 1e9)
    assert mismatch is not None
    assert mismatch.position == 1


def test_an_engine_scores_before_it_starts_and_forgets_it() -> None:
    config = EngineConfig(
        max_position_embeddings=64, eos_token_id=EOS, kv_cache_bytes=200, max_num_batched_tokens=20
    )
    engine = Engine(ScriptedModel(), config)
    assert find_mismatch(engine.score(REQUEST, _answer()), 0.0) is None
    assert engine.num_cached_tokens(REQUEST) == 0
    with pytest.raises(ContextLengthError):
        engine.score(REQUEST, [3] * 60)
