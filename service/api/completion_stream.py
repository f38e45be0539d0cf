"""A completion as a stream of chunks: what goes into which; knows no framing."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from service.api.deps import ApiConfig
from service.api.sse import EventStream, chunk_events
from service.generation.generation_batch import GenerationBatch
from service.generation.legacy_logprobs import legacy_logprobs
from service.protocol.completion_response import Completion, CompletionChoice
from service.protocol.sampling_fields import StreamOptions


def completion_stream(
    batch: GenerationBatch, head: Completion, config: ApiConfig, options: StreamOptions, *, echo: bool
) -> EventStream:
    """The reply; it closes the batch. `head` is a completion without choices."""
    return EventStream(chunk_events(_answer(batch, head, options, echo=echo)), config, batch.close)


async def _answer(
    batch: GenerationBatch, head: Completion, options: StreamOptions, *, echo: bool
) -> AsyncGenerator[str, None]:
    """JSON of the chunks: a choice's prompt before its first token if it is to be echoed, text, finish reason
    alone, usage if asked for."""
    begun: set[int] = set()
    unless = set() if options.include_usage else {"usage"}

    def chunk(*choices: CompletionChoice) -> str:
        usage = batch.usage() if options.continuous_usage_stats else None
        body = head.model_copy(update={"choices": choices, "usage": usage})
        return body.model_dump_json(exclude=unless)

    async with aclosing(batch.deltas()) as deltas:
        async for delta in deltas:
            if echo and delta.index not in begun:
                begun.add(delta.index)
                yield chunk(CompletionChoice(index=delta.index, text=batch.prompt_text(delta.index)))
            if delta.text or delta.logprobs:
                logprobs = legacy_logprobs([delta]) if delta.logprobs else None
                yield chunk(CompletionChoice(index=delta.index, text=delta.text, logprobs=logprobs))
            if delta.finish_reason is not None:
                yield chunk(CompletionChoice(index=delta.index, text="", finish_reason=delta.finish_reason))
    if options.include_usage:
        update = {"usage": batch.usage(), "timings": batch.timings()}
        yield head.model_copy(update=update).model_dump_json()
