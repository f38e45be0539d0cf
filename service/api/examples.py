"""The requests and streams that the OpenAPI document shows."""

from typing import Any

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
    "tool": {
        "summary": "A call of a function",
        "value": {
            "model": "openbmb/MiniCPM-V-2",
            "messages": [{"role": "user", "content": "How warm is it in Oslo?"}],
            "tools": [
                {
                    "type": "function",
                    "function": {
                        "name": "get_temperature",
                        "description": "Degrees Celsius in a city.",
                        "parameters": {
                            "type": "object",
                            "properties": {"city": {"type": "string", "maxLength": 40}},
                            "required": ["city"],
                        },
                    },
                }
            ],
            "tool_choice": "required",
        },
    },
}

COMPLETION_EXAMPLES: dict[str, Any] = {
    "text": {
        "summary": "A text to go on with",
        "value": {"model": "openbmb/MiniCPM-V-2", "prompt": "The sea is", "max_tokens": 32, "stop": "\n"},
    },
}

RESPONSE_EXAMPLES: dict[str, Any] = {
    "text": {
        "summary": "A question",
        "value": {"model": "openbmb/MiniCPM-V-2", "input": "Who are you?", "store": False},
    },
    "image": {
        "summary": "A question about an image, streamed",
        "value": {
            "model": "openbmb/MiniCPM-V-2",
            "instructions": "Answer in one sentence.",
            "input": [
                {
                    "role": "user",
                    "content": [
                        {"type": "input_image", "image_url": _IMAGE_URL, "detail": "auto"},
                        {"type": "input_text", "text": "Which colours are in the picture?"},
                    ],
                }
            ],
            "stream": True,
        },
    },
}

_CHAT_CHUNK = (
    '{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"openbmb/MiniCPM-V-2",'
    '"system_fingerprint":"fp_1","choices":[{"index":0,"delta":%s,"logprobs":null,"finish_reason":%s}]}'
)
CHAT_STREAM_EXAMPLE = "".join(
    f"data: {data}\n\n"
    for data in (
        _CHAT_CHUNK % ('{"role":"assistant","content":""}', "null"),
        _CHAT_CHUNK % ('{"content":"Red and blue."}', "null"),
        _CHAT_CHUNK % ("{}", '"stop"'),
        "[DONE]",
    )
)

_COMPLETION_CHUNK = (
    '{"id":"cmpl-1","object":"text_completion","created":1700000000,"model":"openbmb/MiniCPM-V-2",'
    '"system_fingerprint":"fp_1","choices":[{"index":0,"text":%s,"logprobs":null,"finish_reason":%s}]}'
)
COMPLETION_STREAM_EXAMPLE = "".join(
    f"data: {data}\n\n"
    for data in (_COMPLETION_CHUNK % ('" blue."', "null"), _COMPLETION_CHUNK % ('""', '"stop"'), "[DONE]")
)
RESPONSE_STREAM_EXAMPLE = (
    "event: response.output_text.delta\n"
    'data: {"type":"response.output_text.delta","sequence_number":4,"item_id":"msg_1","output_index":0,'
    '"content_index":0,"delta":"Red and blue.","logprobs":[]}\n\n'
)
