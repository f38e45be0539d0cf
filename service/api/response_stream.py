"""A response as a stream of typed events: which, in what order; knows no framing."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from sse_starlette.event import ServerSentEvent

from service.api.deps import ApiConfig
from service.api.response_body import ResponseBody
from service.api.sse import EventStream, event, failure_detail
from service.generation.generation import Generation
from service.protocol.responses_events import (
    ContentPartEvent,
    ErrorEvent,
    OutputItemEvent,
    ResponseEvent,
    StreamEvent,
    TextDeltaEvent,
    TextDoneEvent,
)
from service.protocol.responses_reply import OutputMessage, OutputTextPart
from service.protocol.responses_request import ResponsesRequest


def response_stream(request: ResponsesRequest, generation: Generation, config: ApiConfig) -> EventStream:
    """The reply; it closes the generation."""
    body = ResponseBody(request, generation, config)
    return EventStream(_named(_events(body, generation)), config, generation.close)


async def _named(events: AsyncGenerator[StreamEvent, None]) -> AsyncGenerator[ServerSentEvent, None]:
    async with aclosing(events):
        async for one in events:
            yield event(one.model_dump_json(), one.type)


class _Count:
    """The numbers of the events, from 0."""

    def __init__(self) -> None:
        self._last = -1

    def next(self) -> int:
        self._last += 1
        return self._last


async def _events(body: ResponseBody, generation: Generation) -> AsyncGenerator[StreamEvent, None]:
    """The response goes out at once, its message with the first token; the last event is always a response's.

    There is no `[DONE]`: OpenAI's has none.
    """
    count = _Count()
    yield ResponseEvent(type="response.created", sequence_number=count.next(), response=body.in_progress())
    yield ResponseEvent(
        type="response.in_progress", sequence_number=count.next(), response=body.in_progress()
    )
    try:
        async with aclosing(_message_events(body, generation, count)) as events:
            async for one in events:
                yield one
    except Exception as error:
        detail = failure_detail(error)
        yield ErrorEvent(
            sequence_number=count.next(),
            code=detail.code or detail.type,
            message=detail.message,
            param=detail.param,
        )
        failed = body.failed(detail.message)
        yield ResponseEvent(type="response.failed", sequence_number=count.next(), response=failed)
        return
    finished = body.finished()
    yield ResponseEvent(
        type="response.completed" if finished.status == "completed" else "response.incomplete",
        sequence_number=count.next(),
        response=finished,
    )


async def _message_events(
    body: ResponseBody, generation: Generation, count: _Count
) -> AsyncGenerator[StreamEvent, None]:
    has_begun = False
    async with aclosing(generation.deltas()) as deltas:
        async for delta in deltas:
            if not has_begun:
                has_begun = True
                yield OutputItemEvent(
                    type="response.output_item.added",
                    sequence_number=count.next(),
                    item=OutputMessage(id=body.item_id, status="in_progress"),
                )
                yield ContentPartEvent(
                    type="response.content_part.added",
                    sequence_number=count.next(),
                    item_id=body.item_id,
                    part=OutputTextPart(text=""),
                )
            logprobs = body.push(delta)
            if delta.text or logprobs:
                yield TextDeltaEvent(
                    sequence_number=count.next(), item_id=body.item_id, delta=delta.text, logprobs=logprobs
                )
    part = body.part
    yield TextDoneEvent(
        sequence_number=count.next(), item_id=body.item_id, text=part.text, logprobs=part.logprobs
    )
    yield ContentPartEvent(
        type="response.content_part.done", sequence_number=count.next(), item_id=body.item_id, part=part
    )
    yield OutputItemEvent(type="response.output_item.done", sequence_number=count.next(), item=body.item())
