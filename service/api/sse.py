"""A generation as a stream of server-sent events: what goes into which chunk, and how a stream ends."""

import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from sse_starlette.event import ServerSentEvent
from sse_starlette.sse import EventSourceResponse
from starlette.types import Receive, Scope, Send

from service.api.deps import ApiConfig
from service.api.error_handlers import error_detail, log_unexpected
from service.errors import EngineError, RequestError
from service.generation.generator import Generation
from service.protocol.chat_response import (
    ChatCompletionChunk,
    ChoiceLogprobs,
    ChunkChoice,
    Delta,
    Usage,
)
from service.protocol.error_response import ErrorResponse
from service.protocol.timings import Timings

# Its debug lines hold the text of every answer.
logging.getLogger("sse_starlette").setLevel(logging.WARNING)

_LINE_END = "\n"


class ChatStream(EventSourceResponse):
    """Headers at once, a comment as ping in every silence, and the generation closed at the end."""

    def __init__(self, generation: Generation, config: ApiConfig, *, include_usage: bool) -> None:
        super().__init__(
            _events(generation, config, include_usage=include_usage),
            headers={"Cache-Control": "no-cache"},
            ping=config.ping_interval_s,
            sep=_LINE_END,
            ping_message_factory=lambda: ServerSentEvent(comment="ping", sep=_LINE_END),
            send_timeout=config.send_timeout_s,
        )
        self._generation = generation

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._generation.close()


class _Chunks:
    """Makes the chunks of one stream, which share id, time and model."""

    def __init__(self, generation: Generation, config: ApiConfig, *, include_usage: bool) -> None:
        self._head = ChatCompletionChunk(
            id=generation.id,
            created=int(time.time()),
            model=config.model_name,
            system_fingerprint=config.system_fingerprint,
            choices=(),
        )
        self._unless = {"usage"} if not include_usage else set()

    def choice(
        self,
        index: int,
        delta: Delta,
        finish_reason: str | None = None,
        logprobs: ChoiceLogprobs | None = None,
    ) -> str:
        choice = ChunkChoice.model_construct(
            index=index, delta=delta, logprobs=logprobs, finish_reason=finish_reason
        )
        body = self._head.model_copy(update={"choices": (choice,)})
        absent = {name for name in ("role", "content") if getattr(delta, name) is None}
        return body.model_dump_json(
            exclude={**dict.fromkeys(self._unless, True), "choices": {0: {"delta": absent}}}
        )

    def usage(self, usage: Usage, timings: Timings | None) -> str:
        return self._head.model_copy(update={"usage": usage, "timings": timings}).model_dump_json()


async def _events(
    generation: Generation, config: ApiConfig, *, include_usage: bool
) -> AsyncGenerator[ServerSentEvent, None]:
    async with aclosing(_answer(generation, config, include_usage=include_usage)) as answer:
        try:
            async for data in answer:
                yield ServerSentEvent(data, sep=_LINE_END)
        except RequestError as error:
            yield _error_event(error)
        except Exception as error:
            log_unexpected(error)
            yield _error_event(EngineError("unexpected"))
    yield ServerSentEvent("[DONE]", sep=_LINE_END)


async def _answer(
    generation: Generation, config: ApiConfig, *, include_usage: bool
) -> AsyncGenerator[str, None]:
    """JSON of the chunks: role with a choice's first token, text, finish reason alone, usage if asked for."""
    chunks = _Chunks(generation, config, include_usage=include_usage)
    begun: set[int] = set()
    async with aclosing(generation.deltas()) as deltas:
        async for delta in deltas:
            if delta.index not in begun:
                begun.add(delta.index)
                yield chunks.choice(delta.index, Delta(role="assistant", content=""))
            grounding = generation.grounding(delta)
            if delta.text or delta.logprobs or grounding is not None:
                logprobs = ChoiceLogprobs(content=delta.logprobs) if delta.logprobs else None
                content = Delta(content=delta.text, grounding=grounding)
                yield chunks.choice(delta.index, content, logprobs=logprobs)
            if delta.finish_reason is not None:
                yield chunks.choice(delta.index, Delta(), delta.finish_reason)
    if include_usage:
        yield chunks.usage(generation.usage(), generation.timings())


def _error_event(error: RequestError) -> ServerSentEvent:
    return ServerSentEvent(ErrorResponse(error=error_detail(error)).model_dump_json(), sep=_LINE_END)
