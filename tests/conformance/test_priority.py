"""`priority` over HTTP: who waits is served in its order, and the answers are the same."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from service.engine.batch import Batch
from service.engine.engine import Engine, EngineConfig
from tests.conformance.scripted_service import TOKEN_IDS, VOCAB_SIZE, ScriptedService, wait_until
from tests.conformance.wire import CHAT, ask
from tests.unit.engine.scripted_model import ScriptedModel

CONFIG = EngineConfig(
    max_position_embeddings=200,
    eos_token_id=TOKEN_IDS.eos,
    kv_cache_bytes=200 * ScriptedModel.block_bytes,
    max_num_seqs=1,
)


class WatchedModel(ScriptedModel):
    """Remembers in which order sequences, numbered as they arrived, came to run."""

    def __init__(self) -> None:
        super().__init__(VOCAB_SIZE)
        self.started: list[int] = []

    def _on_run(self, batch: Batch) -> None:
        self.started += [c.sequence_id for c in batch.chunks if c.sequence_id not in self.started]
        super()._on_run(batch)


@pytest.fixture
def model() -> WatchedModel:
    return WatchedModel()


@pytest.fixture
def engine(model: WatchedModel) -> Iterator[Engine]:
    engine = Engine(model, CONFIG)
    engine.start()
    yield engine
    model.may_run.set()
    engine.stop()


def test_one_at_a_time_the_most_urgent_first(model: WatchedModel, engine: Engine) -> None:
    priorities = [0, 7, None, -3, 0]
    model.may_run.clear()
    with ScriptedService(token_engine=engine) as service, ThreadPoolExecutor(len(priorities)) as clients:
        service.open()
        replies = []
        for index, priority in enumerate(priorities):
            body = ask(f"question {index}", max_tokens=4, temperature=0, priority=priority, stream=index == 3)
            replies.append(clients.submit(httpx.post, f"{service.base_url}{CHAT}", json=body, timeout=30))
            wait_until(lambda number=index: engine.num_unfinished == number + 1)  # type: ignore[misc]
            wait_until(model.in_step.is_set)  # the first runs before the others come
        model.may_run.set()
        bodies = [reply.result() for reply in replies]
        assert [reply.status_code for reply in bodies] == [200] * len(priorities)
        assert model.started == [0, 3, 2, 4, 1]
        for index in (0, 1, 2, 4):
            alone = httpx.post(
                f"{service.base_url}{CHAT}",
                json=ask(f"question {index}", max_tokens=4, temperature=0),
                timeout=30,
            )
            assert alone.json()["choices"] == bodies[index].json()["choices"]
