"""Whether a device computes what convert did, by an engine's logits for the manifest's golden answer.

Knows neither settings nor which device it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from service.artifacts import Golden, ModelConfig
from service.engine.answer_score import TokenScore
from service.engine.sampling_params import SamplingParams
from service.engine.token_events import EngineRequest, ImageSpan
from service.generation.generation import ImageWorker
from service.prompt.chat_template import ChatTemplate
from service.prompt.conversation import Conversation, ImagePart, TextPart, Turn
from service.prompt.tokenizer import Tokenizer
from service.vision.preprocess import cut_slices, slice_digest
from service.vision.slicing import plan_slices
from service.vision.test_card import draw_test_card
from service.vision.worker import DecodedSlice

# Standard deviations of a row of logits; measured in docs/decisions/0013-golden-check.md.
EXACT_TOLERANCE = 0.005
TOLERANCE = 0.25


@dataclass(frozen=True, slots=True)
class GoldenMismatch:
    """The first token of the golden answer that this device would not have chosen, nor nearly."""

    position: int  # in the answer, from 0
    score: TokenScore


async def golden_engine_request(
    golden: Golden, model: ModelConfig, images: ImageWorker, tokenizer: Tokenizer
) -> EngineRequest:
    """The golden request with its picture encoded. Raises EngineError if the encoder fails."""
    card = draw_test_card()
    plan = plan_slices(card.shape[1], card.shape[0], model.image)
    template = ChatTemplate(tokenizer, model.token_ids, model.image.query_num)
    turn = Turn("user", (ImagePart(0), TextPart(golden.prompt)))
    prompt = template.render(Conversation(None, (turn,)), [plan.grid])
    slices = tuple(DecodedSlice(pixels, slice_digest(pixels)) for pixels in cut_slices(card, plan))
    (encoded,) = await images.encode_slices([slices])
    spans = (
        ImageSpan(slots.start, encoded[slots.slice_index].embeddings, encoded[slots.slice_index].digest)
        for slots in prompt.image_slots
    )
    return EngineRequest("golden", prompt.token_ids, tuple(spans), SamplingParams(golden.max_tokens))


def find_mismatch(scores: Sequence[TokenScore], tolerance: float) -> GoldenMismatch | None:
    """The first token too far below the best one; None: the device's answer is the artifact's.

    Rounding may swap two tokens that are nearly equal, after which the answers have nothing in common; so
    the artifact's tokens are put in whatever the device would choose, and each is held against the best.
    """
    for position, score in enumerate(scores):
        if not score.gap <= tolerance:
            return GoldenMismatch(position, score)
    return None
