"""A chat completion as a stream of chunks: what goes into which; knows no framing."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from service.api.deps import ApiConfig
from service.api.sse import EventStream, chunk_events
from service.generation.generation import Generation
from service.protocol.chat_response import ChatCompletionChunk, ChoiceLogprobs, ChunkChoice, Delta
from service.protocol.sampling_fields import StreamOptions


def chat_stream(generation: Generation, config: ApiConfig, options: StreamOptions) -> EventStream:
    """The reply; it closes the generation."""
    return EventStream(chunk_events(_answer(generation, config, options)), config, generation.close)


class _Chunks:
    """Makes the chunks of one stream, which share id, time and model."""

    def __init__(self, generation: Generation, config: ApiConfig, options: StreamOptions) -> None:
        self._generation = generation
        self._head = ChatCompletionChunk(
            id=generation.id,
            created=int(time.time()),
            model=config.model_name,
            system_fingerprint=config.system_fingerprint,
            choices=(),
        )
        self._unless = set() if options.include_usage else {"usage"}
        self._is_usage_continuous = bool(options.continuous_usage_stats)

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
        usage = self._generation.usage() if self._is_usage_continuous else None
        body = self._head.model_copy(update={"choices": (choice,), "usage": usage})
        absent = {name for name in ("role", "content") if getattr(delta, name) is None}
        return body.model_dump_json(
            exclude={**dict.fromkeys(self._unless, True), "choices": {0: {"delta": absent}}}
        )

    def usage(self) -> str:
        update = {"usage": self._generation.usage(), "timings": self._generation.timings()}
        return self._head.model_copy(update=update).model_dump_json()


async def _answer(
    generation: Generation, config: ApiConfig, options: StreamOptions
) -> AsyncGenerator[str, None]:
    """JSON of the chunks: role with a choice's first token, text, finish reason alone, usage if asked for."""
    chunks = _Chunks(generation, config, options)
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
    if options.include_usage:
        yield chunks.usage()
