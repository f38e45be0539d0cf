"""Owns the search for stop strings in a text that comes in pieces; knows no tokens."""

from collections.abc import Sequence


class StopStrings:
    """Finds the stop string that is complete first, and of those that end together the longest.

    The result does not depend on how the text is cut into pieces.
    """

    def __init__(self, stops: Sequence[str], include: bool = False) -> None:
        """`stops` are not empty strings; with `include` the one that matched stays visible."""
        assert all(stops)
        self._stops = tuple(stops)
        self._include = include
        self._held = ""  # the longest suffix so far that begins a stop string
        self._matched: str | None = None

    def push(self, text: str) -> tuple[str, str | None]:
        """(what of the text so far is surely visible, and new; the stop string found, if any).

        After a match nothing is visible any more.
        """
        if self._matched is not None:
            return "", self._matched
        text = self._held + text
        found = min((hit for stop in self._stops if (hit := _find(text, stop))), default=None)
        if found is not None:
            end, start, stop = found
            self._held, self._matched = "", stop
            return text[: end if self._include else start], stop
        cut = min((_start_of_prefix(text, stop) for stop in self._stops), default=len(text))
        self._held = text[cut:]
        return text[:cut], None

    def flush(self) -> str:
        """What was held back, now that no more text comes."""
        held, self._held = self._held, ""
        return held


def _find(text: str, stop: str) -> tuple[int, int, str] | None:
    """(end, start, stop) of the first occurrence."""
    start = text.find(stop)
    return None if start < 0 else (start + len(stop), start, stop)


def _start_of_prefix(text: str, stop: str) -> int:
    """Where the longest suffix of `text` that is a proper prefix of `stop` begins; else the end of `text`."""
    start = text.find(stop[0], max(0, len(text) - len(stop) + 1))
    while start >= 0:
        if stop.startswith(text[start:]):
            return start
        start = text.find(stop[0], start + 1)
    return len(text)
