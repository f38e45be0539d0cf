"""POST /tokenize and /detokenize: what a text or a conversation costs, without a generation."""

from fastapi import APIRouter
from pydantic import TypeAdapter
from starlette.requests import Request

from service.api.deps import ApiConfig, Config, ReadyGenerator
from service.api.disconnect import until_disconnect
from service.api.documentation import errors, request_body
from service.api.models import require_model
from service.api.request_body import read_body
from service.generation.tokenization import detokenize, tokenize
from service.protocol.tokenization import (
    DetokenizeReply,
    DetokenizeRequest,
    TokenizeChatRequest,
    TokenizeReply,
    TokenizeRequest,
    TokenizeTextRequest,
)

router = APIRouter(tags=["tokens"])
_TOKENIZE: TypeAdapter[TokenizeTextRequest | TokenizeChatRequest] = TypeAdapter(TokenizeRequest)
_DETOKENIZE = TypeAdapter(DetokenizeRequest)


@router.post(
    "/tokenize",
    name="tokenize",
    summary="Token ids of a text or of a conversation's prompt",
    responses=errors(400, 401, 404, 413, 429, 503),
    openapi_extra={"requestBody": request_body(TokenizeTextRequest, TokenizeChatRequest)},
)
async def create_tokens(request: Request, config: Config, generator: ReadyGenerator) -> TokenizeReply:
    body = await read_body(request, _TOKENIZE)
    _check_model(body.model, config)
    return await until_disconnect(request, tokenize(body, generator))


@router.post(
    "/detokenize",
    name="detokenize",
    summary="The text of token ids",
    responses=errors(400, 401, 404, 413, 503),
    openapi_extra={"requestBody": request_body(DetokenizeRequest)},
)
async def create_text(request: Request, config: Config, generator: ReadyGenerator) -> DetokenizeReply:
    body = await read_body(request, _DETOKENIZE)
    _check_model(body.model, config)
    return detokenize(body, generator)


def _check_model(model: str | None, config: ApiConfig) -> None:
    if model:
        require_model(model, config)
