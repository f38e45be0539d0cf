"""Owns the conversations that data-aware compression is calibrated with; runs no graph.

Each question is asked without a picture and about two drawn ones: calibrated with texts alone, int4 lost
more (docs/decisions/0030-int4.md).
"""

from collections.abc import Iterator

from convert.calibration_pictures import draw_pictures
from convert.requests import ModelRequest, prepare
from service.artifacts import ModelConfig
from service.prompt.conversation import Conversation, ImagePart, TextPart, Turn
from service.prompt.tokenizer import Tokenizer

_QUESTIONS_AND_ANSWERS = (
    (
        "What is in the image?",
        "The image shows a busy street with a red bus, several cars and people crossing.",
    ),
    (
        "Describe the picture in detail.",
        "A brown dog lies on a wooden floor next to a window. Sunlight falls in.",
    ),
    (
        "How many people are there?",
        "There are three people: two adults sitting on a bench and a child standing.",
    ),
    (
        "Read the text on the sign.",
        'The sign reads: "Open daily from 9:00 to 17:30, closed on public holidays."',
    ),
    ("图片里有什么？", "图片中有一只白色的猫坐在窗台上，窗外正在下雪。"),
    ("请描述这张图表。", "这张柱状图比较了2019年到2023年每个季度的销售额，其中第四季度最高。"),
    (
        "Which of the two bars is higher?",
        "The blue bar is higher: it reaches 42, while the orange one stops at 17.5.",
    ),
    (
        "Write a short poem about it.",
        "Grey clouds drift slow above the bay,\nthe gulls have nothing left to say.",
    ),
    (
        "What does the code do?",
        "```python\nfor name in sorted(names):\n    print(name)\n``` prints the names in order.",
    ),
    (
        "Is this a safe way to cross?",
        "No. The light is red for pedestrians, and a car is turning into the street.",
    ),
    (
        "What is the total on the receipt?",
        "The total is $48.20, including a tax of $3.57 and a tip of $6.00.",
    ),
    ("这是哪里？", "从建筑风格和招牌上的文字来看，这很可能是北京的一条老胡同。"),
)

_PICTURES_EACH = 2


def calibration_requests(model: ModelConfig, tokenizer: Tokenizer) -> Iterator[ModelRequest]:
    """Question, answer and another question: over text alone, then over a picture each."""
    count = len(_QUESTIONS_AND_ANSWERS)
    for index in range(count):
        yield prepare(_conversation(index), (), model, tokenizer)
    for index, picture in enumerate(draw_pictures(_PICTURES_EACH * count, model.image.scale_resolution)):
        yield prepare(_conversation(index % count, ImagePart(0)), (picture,), model, tokenizer)


def _conversation(index: int, *images: ImagePart) -> Conversation:
    question, answer = _QUESTIONS_AND_ANSWERS[index]
    next_question, _ = _QUESTIONS_AND_ANSWERS[(index + 1) % len(_QUESTIONS_AND_ANSWERS)]
    turns = (
        Turn("user", (*images, TextPart(question))),
        Turn("assistant", (TextPart(answer),)),
        Turn("user", (TextPart(next_question),)),
    )
    return Conversation(None, turns)
