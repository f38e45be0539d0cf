"""Owns what is asked about scenes, and the answers: phrasings in both languages, first the fixed English one.

Knows no tokens and no pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass

from numpy.random import Generator

from demo_model.palette import COLOURS, PLACES, SHAPES, Language, named, thing
from demo_model.scene import Figure, Scene, Text


@dataclass(frozen=True, slots=True)
class Question:
    """One turn: what the user says, and the only right answer."""

    task: str
    text: str
    answer: str


PHRASES: dict[str, dict[Language, tuple[str, ...]]] = {
    "shape": {
        "en": ("What shape is this?", "Which shape is it?", "Name the shape.", "What shape do you see?"),
        "zh": ("这是什么形状？", "图里是什么形状？"),
    },
    "colour": {
        "en": (
            "What colour is the {shape}?",
            "What color is the {shape}?",
            "Which colour does the {shape} have?",
        ),
        "zh": ("{shape}是什么颜色？", "{shape}的颜色是什么？"),
    },
    "describe": {
        "en": (
            "Describe the image.",
            "What is in the image?",
            "What do you see?",
            "Describe the picture.",
            "What is in the picture?",
        ),
        "zh": ("描述这张图片。", "图里有什么？"),
    },
    "its colour": {
        "en": ("And its colour?", "And its color?", "What colour is it?", "Which colour?"),
        "zh": ("它是什么颜色？", "颜色呢？"),
    },
    "where": {
        "en": ("Where is the {thing}?", "Find the {thing}.", "At which place is the {thing}?"),
        "zh": ("{thing}在哪里？", "找出{thing}。"),
    },
    "count": {
        "en": ("How many {things} are there?", "Count the {things}.", "How many {things} do you see?"),
        "zh": ("有几个{thing}？", "数一数{thing}。"),
    },
    "read": {
        "en": ("Read the text.", "What does the text say?", "What is written here?"),
        "zh": ("读出文字。", "图中写了什么？"),
    },
    "read at": {
        "en": ("Read the text at the {place}.", "What is written at the {place}?"),
        "zh": ("读出{place}的文字。", "{place}写了什么？"),
    },
    "nth image": {
        "en": ("What is in the {nth} image?", "Describe the {nth} image.", "What does the {nth} image show?"),
        "zh": ("{nth}张图里有什么？", "描述{nth}张图片。"),
    },
    "which image": {
        "en": (
            "Which image has the {shape}?",
            "Which one has the {shape}?",
            "Which image shows the {shape}?",
        ),
        "zh": ("哪张图里有{shape}？",),
    },
    "abilities": {
        "en": ("What can you do?", "Who are you?", "How can you help me?", "Hello!"),
        "zh": ("你能做什么？", "你是谁？"),
    },
    "echo": {
        "en": ("Repeat: {code}", "Say {code}.", "Echo the code {code}.", "Repeat the code {code}."),
        "zh": ("重复：{code}", "请说{code}。"),
    },
    "unknown": {
        "en": (
            "Who painted this?",
            "When was this made?",
            "Where was this photo taken?",
            "How much does it cost?",
            "Who is this?",
            "What is the artist's name?",
        ),
        "zh": ("这是谁画的？", "这是什么时候画的？", "它多少钱？"),
    },
}
ABILITIES: dict[Language, str] = {
    "en": "I name, find and count drawn shapes, and read short texts.",
    "zh": "我能认出、找到和数形状，也能读短文字。",
}
UNKNOWN: dict[Language, str] = {"en": "I cannot tell from the image.", "zh": "从图中看不出来。"}
NOT_THERE: dict[Language, str] = {"en": "not in the image", "zh": "图中没有"}
NO_TEXT: dict[Language, str] = {"en": "no text", "zh": "没有文字"}
NUMERALS: dict[Language, tuple[str, ...]] = {
    "en": ("first", "second", "third"),
    "zh": ("第一", "第二", "第三"),
}

Phrasing = Callable[[str, Language], str]
"""Chooses one of a task's phrasings, by task and language."""


def first_phrasing(task: str, language: Language) -> str:
    """The fixed one."""
    return PHRASES[task][language][0]


def any_phrasing(rng: Generator) -> Phrasing:
    """A random one; the first as often as two others."""

    def choose(task: str, language: Language) -> str:
        phrases = PHRASES[task][language]
        return phrases[max(int(rng.integers(-1, len(phrases))), 0)]

    return choose


def about_scene(scene: Scene, rng: Generator, language: Language, phrasing: Phrasing) -> list[Question]:
    """Everything that can be asked about one image, in no order; two questions that follow each other stand
    as neighbours."""
    asked: list[Question] = []

    def ask(task: str, answer: str, **names: str) -> None:
        asked.append(Question(task, phrasing(task, language).format(**names), answer))

    figures, texts = scene.figures, scene.texts
    ask("describe", describe(scene, language))
    ask("unknown", UNKNOWN[language])
    if len(figures) == 1:
        figure = figures[0]
        ask("shape", named(figure.shape, language))
        ask("its colour", named(figure.colour, language))
    for figure in figures:
        if [f.shape for f in figures].count(figure.shape) == 1:
            ask("colour", named(figure.colour, language), shape=named(figure.shape, language))
    if figures:
        _ask_where(scene, rng, language, ask)
        _ask_counts(scene, rng, language, ask)
    if len(texts) == 1:
        ask("read", texts[0].characters)
    elif not texts:
        ask("read", NO_TEXT[language])
    for text in texts:
        place = scene.place(*text.centre)
        ask("read at", text.characters, place=named(place, language))
    if texts and rng.random() < 0.3:
        free = [place for place in PLACES if place not in {scene.place(*t.centre) for t in texts}]
        ask("read at", NO_TEXT[language], place=named(str(rng.choice(free)), language))
    return asked


def about_images(
    scenes: list[Scene], rng: Generator, language: Language, phrasing: Phrasing
) -> list[Question]:
    """Everything that can be asked about several images of one figure or text each."""
    asked: list[Question] = []
    for number, scene in enumerate(scenes):
        text = phrasing("nth image", language).format(nth=NUMERALS[language][number])
        asked.append(Question("nth image", text, describe(scene, language)))
    shapes = [figure.shape for scene in scenes for figure in scene.figures]
    for number, scene in enumerate(scenes):
        for figure in scene.figures:
            if shapes.count(figure.shape) == 1:
                text = phrasing("which image", language).format(shape=named(figure.shape, language))
                asked.append(Question("which image", text, nth_image(number, language)))
    return asked


def without_image(code: str, language: Language, phrasing: Phrasing) -> list[Question]:
    """What can be asked of the model alone."""
    return [
        Question("abilities", phrasing("abilities", language), ABILITIES[language]),
        Question("echo", phrasing("echo", language).format(code=code), code),
    ]


def nth_image(number: int, language: Language) -> str:
    """ "the second image" for 1."""
    return (
        f"the {NUMERALS[language][number]} image" if language == "en" else f"{NUMERALS[language][number]}张图"
    )


def describe(scene: Scene, language: Language) -> str:
    """What a scene holds, from left to right; more than three things are only counted."""
    things: list[Figure | Text] = [*scene.figures, *scene.texts]
    if len(things) > 3:
        return "many things" if language == "en" else "很多东西"
    if not things:
        return "nothing" if language == "en" else "什么也没有"
    things.sort(key=lambda one: one.x if isinstance(one, Figure) else one.centre[0])
    names = [_name(one, language) for one in things]
    return (" and " if language == "en" else "和").join(names)


def _name(one: Figure | Text, language: Language) -> str:
    if isinstance(one, Text):
        return f"the text {one.characters}" if language == "en" else f"文字{one.characters}"
    name = thing(one.colour, one.shape, language)
    if language == "zh":
        return f"一个{name}"
    return f"an {name}" if one.colour == "orange" else f"a {name}"


def _ask_where(scene: Scene, rng: Generator, language: Language, ask: Callable[..., None]) -> None:
    kinds = [(f.colour, f.shape) for f in scene.figures]
    for figure in scene.figures:
        if kinds.count((figure.colour, figure.shape)) == 1:
            place = named(scene.place(figure.x, figure.y), language)
            ask("where", place, thing=thing(figure.colour, figure.shape, language))
    if rng.random() < 0.15:
        kind = (str(rng.choice(list(COLOURS))), str(rng.choice(SHAPES)))
        if kind not in kinds:
            ask("where", NOT_THERE[language], thing=thing(*kind, language))


def _ask_counts(scene: Scene, rng: Generator, language: Language, ask: Callable[..., None]) -> None:
    kinds = [(f.colour, f.shape) for f in scene.figures]
    # single ones are the most frequent, and would be most of the answers
    asked = [kind for kind in dict.fromkeys(kinds) if kinds.count(kind) > 1 or rng.random() < 0.3]
    colour, shape = str(rng.choice(list(COLOURS))), str(rng.choice(SHAPES))
    # none of these: of a colour or a shape that is there, as often as not
    roll = rng.random()
    absent = (kinds[0][0], shape) if roll < 0.35 else (colour, kinds[0][1]) if roll < 0.7 else (colour, shape)
    if absent not in kinds and rng.random() < 0.5:
        asked.append(absent)
    for kind in asked:
        count = kinds.count(kind)
        if count <= 4:
            name = thing(*kind, language)
            plural = f"{name}{'es' if name.endswith('cross') and rng.random() < 0.7 else 's'}"
            ask("count", str(count), thing=name, things=plural)
