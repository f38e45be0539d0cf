"""The first generation of a start: the manifest's golden request, through every stage a client's takes."""

import base64
import io

from PIL import Image

from service.artifacts import Golden
from service.generation.generator import Generator
from service.protocol.chat_request import ChatCompletionRequest
from service.vision.test_card import draw_test_card


async def warm_up(generator: Generator, golden: Golden) -> str:
    """The greedy answer to the golden request. Raises what a client's request would."""
    generation = await generator.begin(golden_request(golden))
    try:
        return "".join([delta.text async for delta in generation.deltas()])
    finally:
        generation.close()


def golden_request(golden: Golden) -> ChatCompletionRequest:
    """The golden request as a client would send it."""
    png = io.BytesIO()
    Image.fromarray(draw_test_card()).save(png, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"
    content = [{"type": "image_url", "image_url": url}, {"type": "text", "text": golden.prompt}]
    return ChatCompletionRequest.model_validate(
        {
            "messages": [{"role": "user", "content": content}],
            "temperature": 0,
            "max_tokens": golden.max_tokens,
        }
    )
