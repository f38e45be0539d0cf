"""POST /v1/chat/completions, whole or streamed."""

import time
from contextlib import aclosing, closing

from fastapi import APIRouter
from pydantic import TypeAdapter
from starlette.requests import Request
from starlette.responses import Response

from service.api.chat_stream import chat_finish_reason, chat_stream
from service.api.deps import ApiConfig, Config, ReadyGenerator
from service.api.disconnect import until_disconnect
from service.api.documentation import CHAT_REQUEST_BODY, CHAT_STREAM, errors
from service.api.models import require_model
from service.api.request_body import read_body
from service.generation.generation import Generation
from service.generation.generator import Generator
from service.generation.text_stream import TextDelta
from service.protocol.chat_request import ChatCompletionRequest
from service.protocol.chat_response import (
    AssistantMessage,
    ChatCompletion,
    Choice,
    ChoiceLogprobs,
    FunctionCall,
    MessageToolCall,
)
from service.protocol.sampling_fields import StreamOptions

router = APIRouter(prefix="/v1/chat", tags=["chat"])
_SHAPE = TypeAdapter(ChatCompletionRequest)


@router.post(
    "/completions",
    summary="Answer a conversation about text and images",
    response_model=ChatCompletion,
    responses={200: CHAT_STREAM, **errors(400, 401, 404, 413, 429, 500, 503)},
    openapi_extra={"requestBody": CHAT_REQUEST_BODY},
)
async def create_chat_completion(request: Request, config: Config, generator: ReadyGenerator) -> Response:
    body = await read_body(request, _SHAPE)
    if body.model:
        require_model(body.model, config)
    if body.stream:
        options = body.stream_options or StreamOptions()
        generation = await until_disconnect(request, generator.begin(body))
        return chat_stream(generation, config, options)
    completion = await until_disconnect(request, _complete(body, config, generator))
    return Response(completion.model_dump_json(), media_type="application/json")


async def _complete(body: ChatCompletionRequest, config: ApiConfig, generator: Generator) -> ChatCompletion:
    created = int(time.time())
    with closing(await generator.begin(body)) as generation:
        parts: list[list[TextDelta]] = [[] for _ in range(generation.num_choices)]
        async with aclosing(generation.deltas()) as deltas:
            async for delta in deltas:
                parts[delta.index].append(delta)
        return ChatCompletion(
            id=generation.id,
            created=created,
            model=config.model_name,
            system_fingerprint=config.system_fingerprint,
            choices=tuple(_choice(choice, generation) for choice in parts),
            usage=generation.usage(),
            timings=generation.timings(),
        )


def _choice(deltas: list[TextDelta], generation: Generation) -> Choice:
    last = deltas[-1]
    logprobs = tuple(logprob for delta in deltas for logprob in delta.logprobs)
    return Choice(
        index=last.index,
        message=AssistantMessage(
            content=None if last.is_call else "".join(delta.text for delta in deltas),
            tool_calls=_calls(deltas) or None,
            grounding=generation.grounding(last),
        ),
        logprobs=ChoiceLogprobs(content=logprobs) if generation.has_logprobs else None,
        finish_reason=chat_finish_reason(last),
    )


def _calls(deltas: list[TextDelta]) -> tuple[MessageToolCall, ...]:
    """The one call an answer may be."""
    pieces = [delta.call for delta in deltas if delta.call is not None]
    if not pieces:
        return ()
    arguments = "".join(piece.arguments for piece in pieces)
    return (
        MessageToolCall(id=pieces[0].id, function=FunctionCall(name=pieces[0].name, arguments=arguments)),
    )
