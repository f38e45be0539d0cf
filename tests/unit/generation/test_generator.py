"""One request's life over a scripted engine: the refused leave no trace, the ended give their place back."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from service.artifacts import Golden
from service.errors import (
    ContextLengthError,
    ImageDecodeError,
    NotReadyError,
    OverloadedError,
    RequestError,
    TooLargeError,
)
from service.generation.availability import Availability
from service.generation.generator import Generator
from service.generation.warm_up import warm_up
from service.protocol.chat_request import ChatCompletionRequest
from service.vision.worker import VisionWorker
from tests.conformance.scripted_service import (
    QUERY_NUM,
    ByteTokenizer,
    ScriptedEncoder,
    ScriptedEngine,
    generator_config,
)
from tests.conformance.wire import ask, image_part, png


class _Parts:
    def __init__(self) -> None:
        self.engine, self.encoder = ScriptedEngine(), ScriptedEncoder()
        self.worker = VisionWorker(self.encoder)
        self.generator = Generator(
            self.engine, self.worker, ByteTokenizer(), generator_config(max_in_flight=2)
        )


@pytest.fixture
def parts() -> Iterator[_Parts]:
    parts = _Parts()
    yield parts
    parts.encoder.gate.set()
    parts.worker.close()


def _request(*content: Any, **fields: Any) -> ChatCompletionRequest:
    return ChatCompletionRequest.model_validate(ask(*content, **fields))


async def test_spans_meet_their_slots(parts: _Parts) -> None:
    generation = await parts.generator.begin(_request(image_part(png(900, 450)), "?"))
    assert "".join([delta.text async for delta in generation.deltas()]) == "The answer."
    generation.close()
    (request,) = parts.engine.requests
    for span in request.image_spans:
        assert not request.token_ids[span.start : span.start + QUERY_NUM].any(), "slots hold the pad id"
        assert len(span.digest) == 32
    assert (request.token_ids == 0).sum() == QUERY_NUM * len(request.image_spans)
    usage = generation.usage()
    assert usage.prompt_tokens_details.image_tokens == QUERY_NUM * len(request.image_spans)


@pytest.mark.parametrize(
    ("request_", "kind"),
    [
        (_request(image_part(b"noise"), "?"), ImageDecodeError),
        (_request(image_part(png(300, 300)[:150]), "?"), ImageDecodeError),
        (_request(image_part(png(1500, 1400)), "?"), TooLargeError),
        (_request(*[image_part()] * 4), TooLargeError),
        (_request("x" * 600), ContextLengthError),
        (_request("x", max_tokens=512), ContextLengthError),
    ],
)
async def test_a_refused_request_leaves_nothing(
    parts: _Parts, request_: ChatCompletionRequest, kind: type[RequestError]
) -> None:
    with pytest.raises(kind):
        await parts.generator.begin(request_)
    assert parts.generator.num_in_flight == 0
    assert not parts.engine.requests


async def test_the_queue_is_full_before_an_image_is_decoded(parts: _Parts) -> None:
    generations = [await parts.generator.begin(_request("x")) for _ in range(2)]
    with pytest.raises(OverloadedError):
        await parts.generator.begin(_request(image_part(b"noise")))
    generations[0].close()
    generations[0].close()
    assert parts.generator.num_in_flight == 1
    generations[1].close()


async def test_aborted_while_the_image_encodes(parts: _Parts) -> None:
    parts.encoder.gate.clear()
    generation = await parts.generator.begin(_request(image_part()))
    deltas = generation.deltas()
    first = asyncio.ensure_future(anext(deltas))
    await asyncio.sleep(0)
    parts.generator.abort_all()
    parts.encoder.gate.set()
    with pytest.raises(NotReadyError):
        await first
    generation.close()
    assert not parts.engine.requests


async def test_the_warm_up_goes_the_whole_way(parts: _Parts) -> None:
    golden = Golden(prompt="What is it?", image="test_card", max_tokens=3)
    assert await warm_up(parts.generator, golden) == "The"
    (request,) = parts.engine.requests
    assert request.sampling.temperature == 0
    assert request.image_spans
    assert parts.generator.num_in_flight == 0


def test_availability(parts: _Parts) -> None:
    availability = Availability()
    with pytest.raises(NotReadyError, match="loading"):
        availability.require_generator()
    availability.open(parts.generator)
    assert availability.require_generator() is parts.generator
    parts.engine.is_healthy = False
    with pytest.raises(NotReadyError, match="failed"):
        availability.require_generator()
    availability.begin_drain()
    with pytest.raises(NotReadyError, match="shutting down"):
        availability.require_generator()
    availability.open(parts.generator)
    assert availability.state == "draining"
