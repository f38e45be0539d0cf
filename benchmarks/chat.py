"""A client that streams one answer and notes when its tokens came; as light as a client can be."""

import base64
import io
import json
import time
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.streams import StreamTimes

Message = dict[str, Any]

_DATA = "data: "
_END = "[DONE]"


@dataclass(frozen=True, slots=True)
class ChatReply:
    """What one request was told."""

    times: StreamTimes  # of the first token and of the last
    usage: dict[str, Any]
    timings: dict[str, float]  # milliseconds by stage

    @property
    def prompt_tokens(self) -> int:
        return int(self.usage["prompt_tokens"])


def user(text: str, image: NDArray[np.uint8] | None = None) -> Message:
    """A user's message, the image [height, width, 3] in front."""
    if image is None:
        return {"role": "user", "content": text}
    png = io.BytesIO()
    Image.fromarray(image).save(png, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"
    return {
        "role": "user",
        "content": [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": text}],
    }


async def chat(client: httpx.AsyncClient, messages: list[Message], num_tokens: int) -> ChatReply:
    """Stream a greedy answer of exactly `num_tokens` tokens.

    The first chunk comes with the first token, whether that has a text or not, and the one with the finish
    reason with the last: only the two, and the usage at the end, are looked at.
    """
    body = {
        "messages": messages,
        "stream": True,
        "stream_options": {"include_usage": True},
        "timings": True,
        "max_tokens": num_tokens,
        "ignore_eos": True,
        "temperature": 0,
    }
    start_s = time.perf_counter()
    first_s = last_s = 0.0
    usage_chunk = ""
    async with client.stream("POST", "/v1/chat/completions", json=body) as reply:
        if reply.status_code != httpx.codes.OK:
            raise RuntimeError(f"the service answered {reply.status_code}: {(await reply.aread()).decode()}")
        async for line in reply.aiter_lines():
            if not line.startswith(_DATA) or line.endswith(_END):
                continue
            first_s = first_s or time.perf_counter()
            if '"finish_reason":"' in line:
                last_s = time.perf_counter()
            usage_chunk = line
    return _reply(StreamTimes(start_s, (first_s, last_s)), usage_chunk, num_tokens)


def _reply(times: StreamTimes, usage_chunk: str, num_tokens: int) -> ChatReply:
    record = json.loads(usage_chunk.removeprefix(_DATA))
    if record.get("usage") is None or record["usage"]["completion_tokens"] != num_tokens:
        raise RuntimeError(f"not an answer of {num_tokens} tokens: {usage_chunk}")
    return ChatReply(times, record["usage"], record["timings"])
