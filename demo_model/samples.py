"""Owns what a training sample is: images cut by the service's own code, turns as token ids, labels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from demo_model.layouts import Layouts, Sizes
from demo_model.palette import Language
from demo_model.questions import Question, about_images, about_scene, any_phrasing, without_image
from demo_model.scene import Scene, as_jpeg
from demo_model.vision_labels import SliceLabels, label, windows
from service.artifacts import ImageConfig, TokenIds
from service.prompt.chat_template import ChatTemplate
from service.prompt.conversation import Conversation, ImagePart, TextPart, Turn
from service.prompt.tokenizer import SentencePieceTokenizer
from service.vision.preprocess import cut_slices
from service.vision.slicing import SlicePlan, plan_slices

_SKIP = -100
_WEIGHTS = {"count": 3.0, "read": 4.0, "read at": 4.0, "where": 2.0, "unknown": 0.25, "describe": 0.6}


@dataclass(frozen=True, slots=True)
class Picture:
    """One image as the model sees it."""

    slices: tuple[NDArray[np.uint8], ...]  # [height, width, 3] each, the overview first
    labels: tuple[SliceLabels, ...]
    plan: SlicePlan


@dataclass(frozen=True, slots=True)
class Sample:
    """A conversation about images; every answer is learned."""

    pictures: tuple[Picture, ...]
    token_ids: NDArray[np.int64]
    targets: NDArray[np.int64]  # the next token where it belongs to an answer, else -100
    slot_starts: tuple[int, ...]  # of every slice, in order
    slot_images: tuple[int, ...]  # which image each slice belongs to
    asked: tuple[Question, ...]
    spans: tuple[tuple[int, int], ...]  # first and last target of every answer


class Sampler:
    """Samples, each from its own seed."""

    def __init__(
        self,
        tokenizer: SentencePieceTokenizer,
        image_config: ImageConfig,
        sizes: Sizes,
        query_span: float,
        turns: int,
    ) -> None:
        self._tokenizer = tokenizer
        self._template = ChatTemplate(tokenizer, TokenIds(), image_config.query_num)
        self._image_config = image_config
        self._sizes = sizes
        self._query_span = query_span
        self._turns = turns

    def conversation(self, *seed: int, kinds: dict[str, float], small_share: float) -> Sample:
        """A sample with up to `turns` turns, of one of the kinds; a share of the images is small, which makes
        few slices, where these show nothing more than the overview."""
        rng = np.random.default_rng(seed)
        layouts = Layouts(rng, self._image_config, self._sizes, small_share=small_share)
        kind = str(rng.choice(list(kinds), p=list(kinds.values())))
        language: Language = "zh" if rng.random() < 0.2 else "en"
        phrasing = any_phrasing(rng)
        if kind == "no_image":
            asked = [q for _ in range(3) for q in without_image(layouts.code(2, 5), language, phrasing)]
            return self._sample([], asked, rng)
        if kind == "several_images":
            scenes = several(layouts, rng)
            asked = about_images(scenes, rng, language, phrasing)
        else:
            scenes = [getattr(layouts, kind)()]
            asked = about_scene(scenes[0], rng, language, phrasing)
            if rng.random() < 0.1:
                asked += without_image(layouts.code(2, 5), language, phrasing)
        return self._sample([self.picture(scene, rng) for scene in scenes], self._choose(asked, rng), rng)

    def eye(
        self, *seed: int, kinds: dict[str, float], most: int
    ) -> list[tuple[NDArray[np.uint8], SliceLabels]]:
        """The overview and slices of one image, `most` at most, such with something to see first."""
        rng = np.random.default_rng(seed)
        layouts = Layouts(rng, self._image_config, self._sizes)
        kind = str(rng.choice(list(kinds), p=list(kinds.values())))
        picture = self.picture(getattr(layouts, kind)(), rng)
        views = list(zip(picture.slices, picture.labels, strict=True))
        first, rest = views[0], views[1:]
        order = rng.permutation(len(rest))
        rest = sorted((rest[i] for i in order), key=lambda view: not view[1].shows_something)
        return [first, *rest][:most]

    def picture(self, scene: Scene, rng: Generator) -> Picture:
        """Draw a scene, as a JPEG as often as not, and cut it."""
        image = scene.draw(rng)
        if rng.random() < 0.3:
            image = as_jpeg(image, int(rng.integers(70, 96)))
        plan = plan_slices(scene.width, scene.height, self._image_config)
        side = round(self._image_config.query_num**0.5)
        labels = (
            label(scene, window, self._image_config.patch_size, side, self._query_span)
            for window in windows(scene, plan)
        )
        return Picture(cut_slices(np.asarray(image), plan), tuple(labels), plan)

    def _choose(self, asked: list[Question], rng: Generator) -> list[Question]:
        weights = np.array([_WEIGHTS.get(question.task, 1.0) for question in asked])
        count = min(len(asked), self._turns)
        chosen = rng.choice(len(asked), count, replace=False, p=weights / weights.sum())
        return [asked[index] for index in chosen]

    def _sample(self, pictures: list[Picture], asked: Sequence[Question], rng: Generator) -> Sample:
        parts: tuple[ImagePart | TextPart, ...] = (
            *(ImagePart(index) for index in range(len(pictures))),
            TextPart(asked[0].text),
        )
        grids = [picture.plan.grid for picture in pictures]
        prompt = self._template.render(Conversation(None, (Turn("user", parts),)), grids)
        ids = prompt.token_ids.tolist()
        targets = [_SKIP] * len(ids)
        spans: list[tuple[int, int]] = []
        for number, question in enumerate(asked):
            if number:
                turn = self._tokenizer.encode_text(f"<用户>{question.text}<AI>")
                ids += turn
                targets += [_SKIP] * len(turn)
            answer = self._tokenizer.encode_text(question.answer)
            spans.append((len(ids) - 1, len(ids) - 1 + len(answer)))
            targets[-1:] = [*answer, TokenIds().eos]
            ids += answer
        return Sample(
            tuple(pictures),
            np.array(ids, dtype=np.int64),
            np.array(targets, dtype=np.int64),
            tuple(slots.start for slots in prompt.image_slots),
            tuple(slots.image_index for slots in prompt.image_slots),
            tuple(asked),
            tuple(spans),
        )


def several(layouts: Layouts, rng: Generator) -> list[Scene]:
    """Two or three images of one thing each, mostly small ones."""
    scenes = []
    for _ in range(int(rng.integers(2, 4))):
        max_side = None if rng.random() < 0.12 else 112.0
        draw = layouts.one_figure if rng.random() < 0.85 else layouts.large_text
        scenes.append(draw(max_side))
    return scenes
