"""POST /v1/completions, whole or streamed."""

import time
from contextlib import aclosing, closing

from fastapi import APIRouter
from pydantic import TypeAdapter
from starlette.requests import Request
from starlette.responses import Response

from service.api.completion_stream import completion_stream
from service.api.deps import ApiConfig, Config, ReadyGenerator
from service.api.disconnect import until_disconnect
from service.api.documentation import COMPLETION_REQUEST_BODY, COMPLETION_STREAM, errors
from service.api.models import require_model
from service.api.request_body import read_body
from service.generation.generation_batch import GenerationBatch
from service.generation.generator import Generator
from service.generation.legacy_logprobs import legacy_logprobs
from service.generation.text_stream import TextDelta
from service.protocol.completion_request import CompletionRequest
from service.protocol.completion_response import Completion, CompletionChoice
from service.protocol.sampling_fields import StreamOptions

router = APIRouter(prefix="/v1/completions", tags=["completions"])
_SHAPE = TypeAdapter(CompletionRequest)


@router.post(
    "",
    summary="Go on with a text",
    response_model=Completion,
    responses={200: COMPLETION_STREAM, **errors(400, 401, 404, 413, 429, 500, 503)},
    openapi_extra={"requestBody": COMPLETION_REQUEST_BODY},
)
async def create_completion(request: Request, config: Config, generator: ReadyGenerator) -> Response:
    body = await read_body(request, _SHAPE)
    if body.model:
        require_model(body.model, config)
    if body.stream:
        batch = await until_disconnect(request, generator.begin_completion(body))
        options = body.stream_options or StreamOptions()
        return completion_stream(batch, _head(batch, config), config, options, echo=bool(body.echo))
    completion = await until_disconnect(request, _complete(body, config, generator))
    return Response(completion.model_dump_json(), media_type="application/json")


async def _complete(body: CompletionRequest, config: ApiConfig, generator: Generator) -> Completion:
    with closing(await generator.begin_completion(body)) as batch:
        head = _head(batch, config)
        parts: list[list[TextDelta]] = [[] for _ in range(batch.num_choices)]
        async with aclosing(batch.deltas()) as deltas:
            async for delta in deltas:
                parts[delta.index].append(delta)
        choices = tuple(_choice(choice, batch, echo=bool(body.echo)) for choice in parts)
        update = {"choices": choices, "usage": batch.usage(), "timings": batch.timings()}
        return head.model_copy(update=update)


def _head(batch: GenerationBatch, config: ApiConfig) -> Completion:
    return Completion(
        id=batch.id,
        created=int(time.time()),
        model=config.model_name,
        system_fingerprint=config.system_fingerprint,
        choices=(),
    )


def _choice(deltas: list[TextDelta], batch: GenerationBatch, *, echo: bool) -> CompletionChoice:
    last = deltas[-1]
    assert last.finish_reason is not None, "deltas end with a finish reason"
    prompt = batch.prompt_text(last.index) if echo else ""
    return CompletionChoice(
        index=last.index,
        text=prompt + "".join(delta.text for delta in deltas),
        logprobs=legacy_logprobs(deltas) if batch.has_logprobs else None,
        finish_reason=last.finish_reason,
    )
