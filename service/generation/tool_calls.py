"""Tells the call in an answer's text from the text, as it comes; knows no tokens and no wire."""

import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from service.prompt.tool_text import CALL_END, call_beginning


@dataclass(frozen=True, slots=True)
class CallDelta:
    """What became certain of the one call an answer may be."""

    id: str  # the same in all
    name: str
    arguments: str  # a part of their JSON
    is_first: bool


class ToolCallReader:
    """Reads one answer. Whatever the pieces, the joined text and the joined call are the same.

    An answer is a call from its first character to its last, or it is text.
    """

    def __init__(self, names: Iterable[str], is_call: Callable[[str], bool] | None) -> None:
        """`names` of the functions an answer may call. `is_call` judges a whole answer that begins like a
        call, which then comes in one delta; None: every answer is a call for certain."""
        self._names = {call_beginning(name): name for name in names}
        self._is_call = is_call
        self._held = ""
        self._is_text = False
        self._call: CallDelta | None = None  # the last one

    @property
    def has_called(self) -> bool:
        """Whether the answer is a call for certain."""
        return self._call is not None

    def push(self, text: str, *, final: bool) -> tuple[str, CallDelta | None]:
        """What the next piece of the answer adds to its text and to its call; `final` is the last piece."""
        if self._is_text:
            return text, None
        self._held += text
        if self._call is not None:
            return "", self._go_on(final=final)
        beginning = next((b for b in self._names if self._held.startswith(b)), None)
        if beginning is not None and self._is_certain(final=final):
            return "", self._begin(beginning, final=final)
        if final or (beginning is None and not any(b.startswith(self._held) for b in self._names)):
            self._is_text = True
            return self._held, None
        return "", None

    def _is_certain(self, *, final: bool) -> bool:
        return self._is_call is None or (final and self._is_call(self._held))

    def _begin(self, beginning: str, *, final: bool) -> CallDelta:
        self._held = self._held.removeprefix(beginning)
        self._call = CallDelta(
            f"call_{uuid.uuid4().hex}", self._names[beginning], self._arguments(final=final), is_first=True
        )
        return self._call

    def _go_on(self, *, final: bool) -> CallDelta | None:
        assert self._call is not None
        arguments = self._arguments(final=final)
        return replace(self._call, arguments=arguments, is_first=False) if arguments else None

    def _arguments(self, *, final: bool) -> str:
        """Those that came, up to what may be the end of the call itself."""
        if final:
            return self._held.removesuffix(CALL_END)
        arguments, self._held = self._held[: -len(CALL_END)], self._held[-len(CALL_END) :]
        return arguments
