"""Owns what is said to the model, turn by turn; knows no tokens and no pixels."""

from dataclasses import dataclass
from typing import Literal

Role = Literal["user", "assistant"]


@dataclass(frozen=True, slots=True)
class TextPart:
    """What somebody typed. Never trusted: no character of it can become a special token."""

    text: str


@dataclass(frozen=True, slots=True)
class ImagePart:
    """Where an image stands."""

    index: int  # into the images of the conversation, from 0


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of the user or the assistant."""

    role: Role
    parts: tuple[TextPart | ImagePart, ...]


@dataclass(frozen=True, slots=True)
class Conversation:
    """Everything said so far; the answer to it is to be generated."""

    system: str | None
    turns: tuple[Turn, ...]
