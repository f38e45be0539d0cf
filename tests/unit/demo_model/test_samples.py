"""A training sample is what the service would be asked: same tokens, same slices, answers in their places."""

from pathlib import Path

import numpy as np
import pytest

from convert.checkpoint_config import parse_config
from demo_model.layouts import Layouts
from demo_model.questions import Question
from demo_model.samples import Sample, Sampler
from demo_model.settings import read_settings
from demo_model.train import make_sampler
from demo_model.vocabulary import demo_vocabulary
from service.artifacts import TokenIds
from service.prompt.chat_template import ChatTemplate
from service.prompt.conversation import Conversation, ImagePart, TextPart, Turn
from service.prompt.tokenizer import SentencePieceTokenizer

SETTINGS = read_settings()
CONFIG = parse_config(SETTINGS.checkpoint)


@pytest.fixture(scope="module")
def sampler() -> Sampler:
    return make_sampler(SETTINGS, CONFIG)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> SentencePieceTokenizer:
    path: Path = tmp_path_factory.mktemp("vocabulary") / "tokenizer.model"
    path.write_bytes(demo_vocabulary(CONFIG.vocab_size))
    return SentencePieceTokenizer(path, TokenIds())


def conversation(sampler: Sampler, number: int) -> Sample:
    return sampler.conversation(5, number, kinds=SETTINGS.more.kinds, small_share=SETTINGS.more.small_share)


@pytest.mark.parametrize("number", range(12))
def test_tokens_are_those_of_the_chat_template(
    sampler: Sampler, tokenizer: SentencePieceTokenizer, number: int
) -> None:
    """The service renders all earlier turns in one piece; training appends turn by turn."""
    sample = conversation(sampler, number)
    asked = sample.asked
    turns: list[Turn] = []
    for question in asked:
        images = [ImagePart(i) for i in range(len(sample.pictures))] if not turns else []
        turns.append(Turn("user", (*images, TextPart(question.text))))
        turns.append(Turn("assistant", (TextPart(question.answer),)))
    template = ChatTemplate(tokenizer, TokenIds(), CONFIG.query_num)
    last_answer = tokenizer.encode_text(asked[-1].answer)
    rendered = template.render(Conversation(None, tuple(turns[:-1])), [p.plan.grid for p in sample.pictures])
    np.testing.assert_array_equal(rendered.token_ids, sample.token_ids[: -len(last_answer)])
    assert tuple(slots.start for slots in rendered.image_slots) == sample.slot_starts
    assert len(sample.slot_starts) == sum(len(picture.slices) for picture in sample.pictures)


@pytest.mark.parametrize("number", range(12))
def test_every_answer_is_learned_up_to_its_end(
    sampler: Sampler, tokenizer: SentencePieceTokenizer, number: int
) -> None:
    sample = conversation(sampler, number)
    asked = sample.asked
    learned: list[Question] = []
    for question, (first, last) in zip(asked, sample.spans, strict=True):
        *ids, end = sample.targets[first : last + 1].tolist()
        text = b"".join(tokenizer.piece_bytes(token_id) for token_id in ids).decode()
        learned.append(Question(question.task, question.text, text))
        assert end == TokenIds().eos
    assert tuple(learned) == asked
    num_learned = sum(last + 1 - first for first, last in sample.spans)
    assert (sample.targets >= 0).sum() == num_learned


@pytest.mark.parametrize(
    "kinds", [SETTINGS.eye.kinds, SETTINGS.all.kinds, SETTINGS.all.easy_kinds, SETTINGS.more.kinds]
)
def test_every_kind_is_known_and_their_shares_make_one(kinds: dict[str, float]) -> None:
    assert sum(kinds.values()) == pytest.approx(1)
    assert all(kind in ("several_images", "no_image") or hasattr(Layouts, kind) for kind in kinds)


def test_samples_repeat(sampler: Sampler) -> None:
    first, again = conversation(sampler, 3), conversation(sampler, 3)
    np.testing.assert_array_equal(first.token_ids, again.token_ids)
    for a, b in zip(first.pictures, again.pictures, strict=True):
        for x, y in zip(a.slices, b.slices, strict=True):
            np.testing.assert_array_equal(x, y)
