"""From token events to the text the client sees; counts tokens, knows no wire format."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from service.engine.token_events import TokenEvent
from service.prompt.detokenizer import AnswerTrim, Detokenizer
from service.prompt.regions import Region, RegionReader
from service.prompt.stop_strings import StopStrings

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class TextDelta:
    """Text that became certain; `finish_reason` in the last one, and `regions` if they are read."""

    text: str
    finish_reason: FinishReason | None = None
    regions: tuple[Region, ...] | None = None


class TextStream:
    """The visible text of one answer. Whatever the events' sizes, the joined text is the same.

    Stop strings are sought in the text before the whitespace around it is stripped, so one that begins or
    ends in whitespace is found by the token that completes it.
    """

    def __init__(
        self,
        detokenizer: Detokenizer,
        stop_strings: tuple[str, ...],
        *,
        include_stop: bool = False,
        regions: RegionReader | None = None,
    ) -> None:
        """`detokenizer` must not strip. `include_stop` shows the stop string or stop token that matched.

        `regions` reads every token up to the one that ended the answer.
        """
        self._detokenizer = detokenizer
        self._stop_strings = StopStrings(stop_strings, include_stop)
        self._trim = AnswerTrim()
        self._include_stop = include_stop
        self._regions = regions
        self.num_tokens = 0  # up to and including the token that ended the answer

    def push(self, event: TokenEvent) -> TextDelta:
        """What an event adds; after a delta with a finish_reason nothing more may be pushed."""
        assert event.finish_reason not in ("abort", "error"), "no text comes of these"
        delta = self._push(event)
        if delta.finish_reason is None or self._regions is None:
            return delta
        return replace(delta, regions=self._regions.regions)

    def _push(self, event: TokenEvent) -> TextDelta:
        text = ""
        for token_id in self._counted(event):
            if self._regions is not None:
                self._regions.push(token_id)
            visible, matched = self._stop_strings.push(self._detokenizer.push((token_id,)))
            text += self._stripped(visible, final=matched is not None)
            if matched is not None:
                return TextDelta(text, "stop")
        if event.stop_token_id is not None and not self._include_stop:
            self.num_tokens += 1
        if event.finish_reason is None:
            return TextDelta(text)
        visible, matched = self._stop_strings.push(self._detokenizer.flush())
        text += self._stripped(visible + self._stop_strings.flush(), final=matched is not None)
        return TextDelta(text, "stop" if matched is not None or event.finish_reason == "stop" else "length")

    def _counted(self, event: TokenEvent) -> Iterator[int]:
        hidden = event.stop_token_id is not None and not self._include_stop
        for token_id in event.token_ids[:-1] if hidden else event.token_ids:
            self.num_tokens += 1
            yield token_id

    def _stripped(self, text: str, *, final: bool) -> str:
        if final and self._include_stop:
            # The stop string is part of the answer to its last character: behind a mark nothing is stripped.
            return self._trim.push(f"{text}|")[:-1]
        return self._trim.push(text)
