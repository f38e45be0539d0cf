"""POST /v1/responses, whole or streamed; nothing is stored."""

from contextlib import aclosing, closing

from fastapi import APIRouter
from pydantic import TypeAdapter
from starlette.requests import Request
from starlette.responses import Response

from service.api.deps import ApiConfig, Config, ReadyGenerator
from service.api.disconnect import until_disconnect
from service.api.documentation import RESPONSE_REQUEST_BODY, RESPONSE_STREAM, errors
from service.api.models import require_model
from service.api.request_body import read_body
from service.api.response_body import ResponseBody
from service.api.response_stream import response_stream
from service.generation.generator import Generator
from service.protocol.responses_reply import ResponseObject
from service.protocol.responses_request import ResponsesRequest

router = APIRouter(prefix="/v1/responses", tags=["responses"])
_SHAPE = TypeAdapter(ResponsesRequest)


@router.post(
    "",
    summary="Respond to a text, or to a conversation about text and images",
    response_model=ResponseObject,
    responses={200: RESPONSE_STREAM, **errors(400, 401, 404, 413, 429, 500, 503)},
    openapi_extra={"requestBody": RESPONSE_REQUEST_BODY},
)
async def create_response(request: Request, config: Config, generator: ReadyGenerator) -> Response:
    body = await read_body(request, _SHAPE)
    if body.model:
        require_model(body.model, config)
    if body.stream:
        generation = await until_disconnect(request, generator.begin(body))
        return response_stream(body, generation, config)
    response = await until_disconnect(request, _respond(body, config, generator))
    return Response(response.model_dump_json(), media_type="application/json")


async def _respond(body: ResponsesRequest, config: ApiConfig, generator: Generator) -> ResponseObject:
    with closing(await generator.begin(body)) as generation:
        response = ResponseBody(body, generation, config)
        async with aclosing(generation.deltas()) as deltas:
            async for delta in deltas:
                response.push(delta)
        return response.finished()
