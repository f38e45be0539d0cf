"""Owns what the graphs are asked in golden runs and verification; knows neither torch nor OpenVINO.

Everything between a question and the graphs' inputs is the service's own code.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.artifacts import Golden, ModelConfig
from service.prompt.chat_template import ChatTemplate, ImageSlots
from service.prompt.conversation import Conversation, ImagePart, TextPart, Turn
from service.prompt.tokenizer import Tokenizer
from service.vision.preprocess import cut_slices, normalize
from service.vision.slicing import plan_slices
from service.vision.test_card import draw_test_card

Pixels = NDArray[np.float32]  # [n, 3, height, width], normalised
Embeddings = NDArray[np.float32]  # [n, rows, hidden]

GOLDEN = Golden(prompt="What is in the image?", image="test_card", max_tokens=16)


@dataclass(frozen=True, slots=True, eq=False)
class ModelRequest:
    """A prompt as token ids, and the pixels that fill its slots."""

    token_ids: NDArray[np.int64]  # [num_prompt_tokens]
    image_slots: tuple[ImageSlots, ...]
    pixels: tuple[Pixels, ...]  # one per slot, in the same order
    query_num: int

    def embed(
        self,
        embed_text: Callable[[NDArray[np.int64]], Embeddings],
        encode_image: Callable[[Pixels], Embeddings],
    ) -> Embeddings:
        """inputs_embeds f32 [1, num_prompt_tokens, hidden]: text rows, image rows in the slots."""
        rows = np.array(embed_text(self.token_ids[None]))
        for slot, pixels in zip(self.image_slots, self.pixels, strict=True):
            image = encode_image(pixels)[0]
            rows[0, slot.start : slot.start + len(image)] = image
        return rows


def golden_request(model: ModelConfig, tokenizer: Tokenizer) -> ModelRequest:
    """The fixed request whose greedy answer every export records."""
    turn = Turn("user", (ImagePart(0), TextPart(GOLDEN.prompt)))
    return prepare(Conversation(None, (turn,)), (draw_test_card(),), model, tokenizer)


def verification_requests(model: ModelConfig, tokenizer: Tokenizer) -> tuple[ModelRequest, ...]:
    """Text alone, an image, a sliced image, a narrow one, and a conversation over several turns."""
    card = draw_test_card()
    narrow = np.ascontiguousarray(card[:, ::20])  # 28 pixels wide
    tall = np.concatenate([card, card[::-1]])  # 560 x 700: the overview and two slices
    ask = TextPart("Describe the image in detail.")
    cases: tuple[tuple[tuple[NDArray[np.uint8], ...], tuple[Turn, ...]], ...] = (
        ((), (Turn("user", (TextPart("Why is the sky blue, and the sunset red?"),)),)),
        ((), (Turn("user", (TextPart("请用中文介绍一下北京。\n1. 历史\n2. 饮食"),)),)),
        ((card,), (Turn("user", (ImagePart(0), ask)),)),
        ((tall,), (Turn("user", (ImagePart(0), ask)),)),
        (
            (narrow,),
            (
                Turn("user", (ImagePart(0), ask)),
                Turn("assistant", (TextPart("It shows colour bars."),)),
                Turn("user", (TextPart("Which colours, from left to right?"),)),
            ),
        ),
    )
    return tuple(prepare(Conversation(None, turns), images, model, tokenizer) for images, turns in cases)


def verification_pixels(model: ModelConfig) -> tuple[Pixels, ...]:
    """Inputs of the image encoder: the position table's own grid, odd sizes, long strips, a batch."""
    patch, side = model.image.patch_size, model.image.scale_resolution
    sizes = (  # (n, height, width)
        (1, 27 * patch, 27 * patch),
        (1, side, side),
        (1, 9 * patch, 81 * patch),
        (1, 1, 40 * patch),
        (1, 60 * patch, 2 * patch),
        (1, 21 * patch + 5, 13 * patch + 9),
        (3, 16 * patch, 12 * patch),
    )
    generator = np.random.default_rng(0)
    return tuple(
        normalize(tuple(generator.integers(0, 256, (n, height, width, 3), dtype=np.uint8)), model.image)
        for n, height, width in sizes
    )


def prepare(
    conversation: Conversation,
    images: tuple[NDArray[np.uint8], ...],
    model: ModelConfig,
    tokenizer: Tokenizer,
) -> ModelRequest:
    """Render `conversation` about `images` (uint8 [height, width, 3] each) as the service would."""
    plans = [plan_slices(image.shape[1], image.shape[0], model.image) for image in images]
    template = ChatTemplate(tokenizer, model.token_ids, model.image.query_num)
    rendered = template.render(conversation, [plan.grid for plan in plans])
    slices = [cut_slices(image, plan) for image, plan in zip(images, plans, strict=True)]
    pixels = tuple(
        normalize((slices[slot.image_index][slot.slice_index],), model.image) for slot in rendered.image_slots
    )
    return ModelRequest(rendered.token_ids, rendered.image_slots, pixels, model.image.query_num)
