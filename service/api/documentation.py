"""What openapi.yaml says beyond the types: request bodies, streams, error envelopes."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode

from service.api.examples import (
    CHAT_EXAMPLES,
    CHAT_STREAM_EXAMPLE,
    COMPLETION_EXAMPLES,
    COMPLETION_STREAM_EXAMPLE,
    RESPONSE_EXAMPLES,
    RESPONSE_STREAM_EXAMPLE,
)
from service.protocol.chat_request import ChatCompletionRequest
from service.protocol.chat_response import ChatCompletionChunk
from service.protocol.completion_request import CompletionRequest
from service.protocol.completion_response import Completion
from service.protocol.error_response import ErrorResponse
from service.protocol.responses_events import (
    ContentPartEvent,
    ErrorEvent,
    OutputItemEvent,
    ResponseEvent,
    TextDeltaEvent,
    TextDoneEvent,
)
from service.protocol.responses_request import ResponsesRequest
from service.protocol.tokenization import DetokenizeRequest, TokenizeChatRequest, TokenizeTextRequest

_SCHEMAS = "#/components/schemas/"
# Bodies are read by request_body.py and streams by no model of FastAPI's: it does not know these.
_REQUESTS = (
    ChatCompletionRequest,
    CompletionRequest,
    ResponsesRequest,
    TokenizeTextRequest,
    TokenizeChatRequest,
    DetokenizeRequest,
)
_EVENTS = (
    ChatCompletionChunk,
    ResponseEvent,
    OutputItemEvent,
    ContentPartEvent,
    TextDeltaEvent,
    TextDoneEvent,
    ErrorEvent,
)


def request_body(*shapes: type[BaseModel], examples: dict[str, Any] | None = None) -> dict[str, Any]:
    """A body of one of these shapes, which describe() adds to the document."""
    references = [{"$ref": _SCHEMAS + shape.__name__} for shape in shapes]
    media: dict[str, Any] = {"schema": references[0] if len(references) == 1 else {"anyOf": references}}
    if examples is not None:
        media["examples"] = examples
    return {"required": True, "content": {"application/json": media}}


CHAT_REQUEST_BODY = request_body(ChatCompletionRequest, examples=CHAT_EXAMPLES)
COMPLETION_REQUEST_BODY = request_body(CompletionRequest, examples=COMPLETION_EXAMPLES)
RESPONSE_REQUEST_BODY = request_body(ResponsesRequest, examples=RESPONSE_EXAMPLES)


def _stream(
    description: str, example: str, *shapes: type[BaseModel], has_done: bool = True
) -> dict[str, Any]:
    """A stream whose events hold these shapes as JSON, and `[DONE]` at last."""
    data: dict[str, Any] = {
        "type": "string",
        "contentMediaType": "application/json",
        "contentSchema": {"anyOf": [{"$ref": _SCHEMAS + shape.__name__} for shape in shapes]},
    }
    if has_done:
        data = {"anyOf": [{"const": "[DONE]"}, data]}
    # OpenAPI 3.2's word for one event of many, which FastAPI writes into 3.1 as well.
    item = {"type": "object", "required": ["data"], "properties": {"data": data}}
    content = {"text/event-stream": {"itemSchema": item, "example": example}}
    return {"description": description, "content": content}


_CHUNKS = (
    "The completion; with `stream`, its chunks as server-sent events: `data: {JSON}` each, comments "
    '`: ping` in a silence, `data: [DONE]` last. A failure on the way is `data: {"error": ...}`.'
)
CHAT_STREAM = _stream(_CHUNKS, CHAT_STREAM_EXAMPLE, ChatCompletionChunk, ErrorResponse)
COMPLETION_STREAM = _stream(_CHUNKS, COMPLETION_STREAM_EXAMPLE, Completion, ErrorResponse)
RESPONSE_STREAM = _stream(
    "The response; with `stream`, typed server-sent events: `event: {type}` and `data: {JSON}` each, "
    "comments `: ping` in a silence, `response.completed`, `response.incomplete` or `response.failed` last.",
    RESPONSE_STREAM_EXAMPLE,
    *_EVENTS[1:],
    has_done=False,
)

_ERRORS: dict[int, tuple[str, dict[str, str | None]]] = {
    400: (
        "A field has a bad or unsupported value; an image cannot be read; the context is too short.",
        {
            "message": "temperature: Input should be less than or equal to 2",
            "type": "invalid_request_error",
            "param": "temperature",
            "code": None,
        },
    ),
    401: (
        "No API key, or a wrong one.",
        {
            "message": "the API key is not valid",
            "type": "invalid_request_error",
            "param": None,
            "code": "invalid_api_key",
        },
    ),
    404: (
        "No such model or route.",
        {
            "message": "there is no such model; this server has openbmb/MiniCPM-V-2",
            "type": "invalid_request_error",
            "param": "model",
            "code": "model_not_found",
        },
    ),
    413: (
        "The body, an image file or an image is too large.",
        {
            "message": "the request body is larger than 67108864 bytes",
            "type": "invalid_request_error",
            "param": None,
            "code": "request_too_large",
        },
    ),
    429: (
        "The queue is full; see Retry-After.",
        {
            "message": "the service is at its limit of requests; try again in a few seconds",
            "type": "rate_limit_error",
            "param": None,
            "code": "rate_limit_exceeded",
        },
    ),
    500: (
        "The server's fault.",
        {
            "message": "The server failed while working on this request.",
            "type": "server_error",
            "param": None,
            "code": None,
        },
    ),
    503: (
        "Loading, shutting down or failed; see Retry-After.",
        {
            "message": "the model is loading; try again in a few seconds",
            "type": "server_error",
            "param": None,
            "code": "model_not_ready",
        },
    ),
}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """FastAPI's `responses` for error statuses; whatever else goes wrong is an envelope too."""
    replies: dict[int | str, dict[str, Any]] = {status: _error(*_ERRORS[status]) for status in statuses}
    # Its presence also keeps FastAPI from documenting a 422 that no client ever sees.
    return replies | {"default": {"model": ErrorResponse, "description": "Any other error."}}


def _error(description: str, example: dict[str, str | None]) -> dict[str, Any]:
    content = {"application/json": {"example": {"error": example}}}
    return {"model": ErrorResponse, "description": description, "content": content}


def describe(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of the application."""
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    schemas = document["components"]["schemas"]
    for shape in (*_REQUESTS, *_EVENTS):
        mode: JsonSchemaMode = "validation" if shape in _REQUESTS else "serialization"
        schema = shape.model_json_schema(ref_template=_SCHEMAS + "{model}", mode=mode)
        schemas |= schema.pop("$defs", {}) | {shape.__name__: schema}
    document["components"]["schemas"] = dict(sorted(schemas.items()))
    document["components"]["securitySchemes"] = {"apiKey": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{"apiKey": []}, {}]
    return document
