"""What openapi.yaml says beyond the types: the request body, examples, the stream, the error envelopes."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode

from service.protocol.chat_request import ChatCompletionRequest
from service.protocol.chat_response import ChatCompletionChunk
from service.protocol.error_response import ErrorResponse
from service.protocol.tokenization import DetokenizeRequest, TokenizeChatRequest, TokenizeTextRequest

_SCHEMAS = "#/components/schemas/"
# Bodies are read by request_body.py and streams by no model of FastAPI's: it does not know these.
_REQUESTS = (ChatCompletionRequest, TokenizeTextRequest, TokenizeChatRequest, DetokenizeRequest)
# Eight by eight pixels, a red and blue chessboard of four fields.
_IMAGE_URL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAgAAAAIAQMAAAD+wSzIAAAABlBMVEX/AAAAAP9sof2OAAAAE0lEQVR4"
    "2mPgZ2JgYmBiYPgAoQEH4QEM14wkXQAAAABJRU5ErkJggg=="
)

CHAT_EXAMPLES: dict[str, Any] = {
    "text": {
        "summary": "A question",
        "value": {"model": "openbmb/MiniCPM-V-2", "messages": [{"role": "user", "content": "Who are you?"}]},
    },
    "image": {
        "summary": "A question about an image, streamed",
        "value": {
            "model": "openbmb/MiniCPM-V-2",
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "image_url", "image_url": {"url": _IMAGE_URL, "detail": "auto"}},
                        {"type": "text", "text": "Which colours are in the picture?"},
                    ],
                }
            ],
            "max_tokens": 256,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        },
    },
}

CHAT_REQUEST_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {"$ref": _SCHEMAS + ChatCompletionRequest.__name__},
            "examples": CHAT_EXAMPLES,
        }
    },
}


def request_body(*shapes: type[BaseModel]) -> dict[str, Any]:
    """A body of one of these shapes, which describe() adds to the document."""
    references = [{"$ref": _SCHEMAS + shape.__name__} for shape in shapes]
    schema = references[0] if len(references) == 1 else {"anyOf": references}
    return {"required": True, "content": {"application/json": {"schema": schema}}}


_CHUNK = (
    '{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"openbmb/MiniCPM-V-2",'
    '"system_fingerprint":"fp_1","choices":[{"index":0,"delta":%s,"logprobs":null,"finish_reason":%s}]}'
)
_STREAM_EXAMPLE = "".join(
    f"data: {data}\n\n"
    for data in (
        _CHUNK % ('{"role":"assistant","content":""}', "null"),
        _CHUNK % ('{"content":"Red and blue."}', "null"),
        _CHUNK % ("{}", '"stop"'),
        "[DONE]",
    )
)

CHAT_STREAM: dict[str, Any] = {
    "description": (
        "The completion; with `stream`, its chunks as server-sent events: `data: {JSON}` each, comments "
        '`: ping` in a silence, `data: [DONE]` last. A failure on the way is `data: {"error": ...}`.'
    ),
    "content": {
        "text/event-stream": {
            "schema": {"type": "string", "description": "ChatCompletionChunk as JSON behind every `data: `."},
            "example": _STREAM_EXAMPLE,
        }
    },
}

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
    for shape in (*_REQUESTS, ChatCompletionChunk):
        mode: JsonSchemaMode = "validation" if shape in _REQUESTS else "serialization"
        schema = shape.model_json_schema(ref_template=_SCHEMAS + "{model}", mode=mode)
        schemas |= schema.pop("$defs", {}) | {shape.__name__: schema}
    document["components"]["schemas"] = dict(sorted(schemas.items()))
    document["components"]["securitySchemes"] = {"apiKey": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{"apiKey": []}, {}]
    return document
