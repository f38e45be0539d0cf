"""A chat completion as a stream of chunks: what goes into which; knows no framing."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from service.api.deps import ApiConfig
from service.api.sse import EventStream, chunk_events
from service.generation.generation import Generation
from service.generation.text_stream import TextDelta
from service.generation.tool_calls import CallDelta
from service.protocol.chat_response import (
    ChatCompletionChunk,
    ChatFinishReason,
    ChoiceLogprobs,
    ChunkChoice,
    Delta,
    FunctionCallDelta,
    ToolCallDelta,
)
from service.protocol.sampling_fields import StreamOptions


def chat_stream(generation: Generation, config: ApiConfig, options: StreamOptions) -> EventStream:
    """The reply; it closes the generation."""
    return EventStream(chunk_events(_answer(generation, config, options)), config, generation.close)


def chat_finish_reason(last: TextDelta) -> ChatFinishReason:
    """What a choice's last delta says in a chat completion; a call that the length cut says so."""
    assert last.finish_reason is not None, "deltas end with a finish reason"
    return "tool_calls" if last.is_call and last.finish_reason == "stop" else last.finish_reason


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
    no_text = None if generation.may_call else ""  # a call has no content, not even an empty one
    async with aclosing(generation.deltas()) as deltas:
        async for delta in deltas:
            if delta.index not in begun:
                begun.add(delta.index)
                yield chunks.choice(delta.index, Delta(role="assistant", content=no_text))
            grounding = generation.grounding(delta)
            ends_as_text = generation.may_call and delta.finish_reason is not None and not delta.is_call
            if delta.text or delta.logprobs or grounding is not None or ends_as_text:
                logprobs = ChoiceLogprobs(content=delta.logprobs) if delta.logprobs else None
                text = delta.text if delta.text or ends_as_text else no_text
                content = Delta(content=text, grounding=grounding)
                yield chunks.choice(delta.index, content, logprobs=logprobs)
            for call in _pieces(delta.call):
                yield chunks.choice(delta.index, Delta(tool_calls=(call,)))
            if delta.finish_reason is not None:
                yield chunks.choice(delta.index, Delta(), chat_finish_reason(delta))
    if options.include_usage:
        yield chunks.usage()


def _pieces(call: CallDelta | None) -> list[ToolCallDelta]:
    """A call's name, with arguments that are empty as yet, and what came of its arguments."""
    pieces = []
    if call is not None and call.is_first:
        function = FunctionCallDelta(name=call.name, arguments="")
        pieces.append(ToolCallDelta(id=call.id, type="function", function=function))
    if call is not None and call.arguments:
        pieces.append(ToolCallDelta(function=FunctionCallDelta(arguments=call.arguments)))
    return pieces
