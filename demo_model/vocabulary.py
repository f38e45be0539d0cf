"""Owns the sentences the demo model's vocabulary is learned from: everything it is asked and answers."""

from itertools import pairwise

from convert.vocabulary import train_vocabulary
from demo_model import questions
from demo_model.palette import CHARACTERS, COLOURS, PLACES, SHAPES, Language, named, thing

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_LANGUAGES: tuple[Language, ...] = ("en", "zh")


def demo_vocabulary(vocab_size: int) -> bytes:
    """A serialised sentencepiece model of `vocab_size` pieces; the same each time."""
    return train_vocabulary(vocab_size, sentences=_sentences(), trained_size=vocab_size)


def _sentences() -> list[str]:
    lines: list[str] = []
    for language in _LANGUAGES:
        kinds = [(colour, shape) for colour in COLOURS for shape in SHAPES]
        names = [thing(*kind, language) for kind in kinds]
        places = [named(place, language) for place in PLACES]
        fill = {
            "{thing}": names,
            "{things}": [f"{name}s" for name in names],
            "{place}": places,
            "{shape}": [named(shape, language) for shape in SHAPES],
            "{nth}": list(questions.NUMERALS[language]),
            "{code}": ["A"],
        }
        for phrases in questions.PHRASES.values():
            for phrase in phrases[language]:
                key = next((key for key in fill if key in phrase), None)
                lines += [phrase.replace(key, value) for value in fill[key]] if key else [phrase] * 10
        constant = (
            *(questions.ABILITIES[language], questions.UNKNOWN[language]),
            *(questions.NOT_THERE[language], questions.NO_TEXT[language]),
            *(questions.nth_image(number, language) for number in range(3)),
        )
        lines += [*places * 4, *names, *(f"{a} and {b}" for a, b in pairwise(names))]
        lines += [line for line in constant for _ in range(10)]
        lines += [f"a {name} and an {name} many things nothing the text crosses" for name in names]
    lines += ["<用户>a<AI>b"] * 50 + ["一个和很多东西什么也没有文字"] * 4
    lines += [f"{character} :" for character in _LETTERS + _LETTERS.lower() + CHARACTERS for _ in range(3)]
    return lines
