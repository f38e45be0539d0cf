"""From token events to the text the client sees; counts tokens, knows no wire format."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from service.engine.token_events import TokenEvent
from service.generation.token_logprobs import LogprobNames
from service.generation.tool_calls import CallDelta, ToolCallReader
from service.prompt.detokenizer import AnswerTrim, Detokenizer
from service.prompt.regions import Region, RegionReader
from service.prompt.stop_strings import StopStrings
from service.protocol.chat_response import TokenLogprob

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class TextDelta:
    """Text of one choice that became certain; `finish_reason` in the last one.

    In that one stand the `regions` of the whole answer too, if they are read.
    `offsets` are of the tokens that came, whether their text is certain by now or not: in all deltas
    together, one for every token counted, the characters of text in front of it. So are `logprobs`, if they
    were asked for.
    What of an answer `is_call` is no text; that it is one is known from the first delta with a `call`.
    """

    text: str
    finish_reason: FinishReason | None = None
    index: int = 0  # of the choice
    logprobs: tuple[TokenLogprob, ...] = ()
    regions: tuple[Region, ...] | None = None
    offsets: tuple[int, ...] = ()
    call: CallDelta | None = None
    is_call: bool = False

    @property
    def num_tokens(self) -> int:
        """How many tokens came."""
        return len(self.offsets)


class TextStream:
    """The visible text of one answer. Whatever the events' sizes, the joined text is the same.

    Stop strings are sought in the text before the whitespace around it is stripped, so one that begins or
    ends in whitespace is found by the token that completes it. Offsets count unstripped text too.
    """

    def __init__(
        self,
        detokenizer: Detokenizer,
        stop_strings: tuple[str, ...],
        *,
        include_stop: bool = False,
        strip: bool = True,
        names: LogprobNames | None = None,
        regions: RegionReader | None = None,
        calls: ToolCallReader | None = None,
    ) -> None:
        """`detokenizer` must not strip. `include_stop` shows the stop string or stop token that matched.

        With `names`, events with log-probabilities are told with them. `regions` reads every token up to the
        one that ended the answer, `calls` the visible text.
        """
        self._detokenizer = detokenizer
        self._stop_strings = StopStrings(stop_strings, include_stop)
        self._trim = AnswerTrim() if strip else None
        self._include_stop = include_stop
        self._names = names
        self._regions = regions
        self._calls = calls
        self.is_finished = False
        self.num_tokens = 0  # up to and including the token that ended the answer
        self._num_characters = 0  # of the text so far, stop strings included
        self._offsets: list[int] = []  # of the tokens of the event under way

    def push(self, event: TokenEvent) -> TextDelta:
        """What an event adds; after a delta with a finish_reason nothing more may be pushed."""
        assert event.finish_reason not in ("abort", "error"), "no text comes of these"
        assert not self.is_finished
        self._offsets = []
        text, finish_reason = self._push(event)
        self.is_finished = finish_reason is not None
        offsets = tuple(self._offsets)
        self.num_tokens += len(offsets)
        logprobs = self._logprobs(event, len(offsets)) if event.logprobs else ()
        regions = self._regions.regions if self._regions is not None and self.is_finished else None
        delta = TextDelta(text, finish_reason, event.index, logprobs, regions, offsets)
        return delta if self._calls is None else self._with_call(delta, self._calls)

    @property
    def may_call(self) -> bool:
        """Whether the answer may be a call."""
        return self._calls is not None

    def _push(self, event: TokenEvent) -> tuple[str, FinishReason | None]:
        text = ""
        for token_id in self._counted(event):
            if self._regions is not None:
                self._regions.push(token_id)
            certain = self._detokenizer.push((token_id,))
            self._num_characters += len(certain)
            visible, matched = self._stop_strings.push(certain)
            text += self._stripped(visible, final=matched is not None)
            if matched is not None:
                return text, "stop"
        if event.stop_token_id is not None and not self._include_stop:
            self._offsets.append(self._num_characters)
        if event.finish_reason is None:
            return text, None
        visible, matched = self._stop_strings.push(self._detokenizer.flush())
        text += self._stripped(visible + self._stop_strings.flush(), final=matched is not None)
        return text, "stop" if matched is not None or event.finish_reason == "stop" else "length"

    def _with_call(self, delta: TextDelta, calls: ToolCallReader) -> TextDelta:
        text, call = calls.push(delta.text, final=self.is_finished)
        return replace(delta, text=text, call=call, is_call=calls.has_called)

    def _logprobs(self, event: TokenEvent, num_counted: int) -> tuple[TokenLogprob, ...]:
        assert self._names is not None, "nobody asked for log-probabilities"
        told = zip(event.token_ids[:num_counted], event.logprobs, strict=False)
        return tuple(self._names.describe(token_id, logprobs) for token_id, logprobs in told)

    def _counted(self, event: TokenEvent) -> Iterator[int]:
        hidden = event.stop_token_id is not None and not self._include_stop
        for token_id in event.token_ids[:-1] if hidden else event.token_ids:
            self._offsets.append(self._num_characters)
            yield token_id

    def _stripped(self, text: str, *, final: bool) -> str:
        if self._trim is None:
            return text
        if final and self._include_stop:
            # The stop string is part of the answer to its last character: behind a mark nothing is stripped.
            return self._trim.push(f"{text}|")[:-1]
        return self._trim.push(text)
