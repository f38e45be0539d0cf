"""One response as it grows: its text so far, and the object it is on the wire at any time."""

import time
from collections.abc import Sequence

from service.api.deps import ApiConfig
from service.generation.generation import Generation
from service.generation.text_stream import FinishReason, TextDelta
from service.protocol.chat_response import TokenLogprob, TopLogprob
from service.protocol.responses_reply import (
    IncompleteDetails,
    InputTokensDetails,
    ItemStatus,
    OutputLogprob,
    OutputMessage,
    OutputTextPart,
    OutputTopLogprob,
    ResponseFailure,
    ResponseObject,
    ResponseUsage,
    TextSettings,
)
from service.protocol.responses_request import ResponsesRequest


class ResponseBody:
    """Told of every delta; asked for the response as it stands."""

    def __init__(self, request: ResponsesRequest, generation: Generation, config: ApiConfig) -> None:
        self._generation = generation
        self._text = ""
        self._logprobs: list[OutputLogprob] = []
        self._finish_reason: FinishReason | None = None
        self._has_begun = False
        sampling = generation.sampling
        self._head = ResponseObject(
            id=generation.id,
            created_at=int(time.time()),
            status="in_progress",
            instructions=request.instructions,
            max_output_tokens=request.max_output_tokens,
            model=config.model_name,
            temperature=sampling.temperature,
            top_p=sampling.top_p if request.top_p is None else request.top_p,
            top_logprobs=request.top_logprobs or 0,
            text=_text_settings(request),
            metadata=request.metadata or {},
            system_fingerprint=config.system_fingerprint,
        )
        self.item_id = f"msg_{generation.id.removeprefix(request.id_prefix)}"

    def push(self, delta: TextDelta) -> tuple[OutputLogprob, ...]:
        """Take the next delta; returns its log-probabilities as the wire has them."""
        logprobs = _output_logprobs(delta.logprobs)
        self._text += delta.text
        self._logprobs.extend(logprobs)
        self._finish_reason = delta.finish_reason
        self._has_begun = True
        return logprobs

    @property
    def part(self) -> OutputTextPart:
        """The text so far."""
        return OutputTextPart(text=self._text, logprobs=tuple(self._logprobs))

    def item(self) -> OutputMessage:
        """The message so far; incomplete where the answer ended before its end."""
        status: ItemStatus = "completed" if self._finish_reason == "stop" else "incomplete"
        return OutputMessage(id=self.item_id, status=status, content=(self.part,))

    def in_progress(self) -> ResponseObject:
        """Before the first token."""
        return self._head

    def finished(self) -> ResponseObject:
        """After the last delta."""
        is_whole = self._finish_reason == "stop"
        return self._ended(
            status="completed" if is_whole else "incomplete",
            completed_at=int(time.time()) if is_whole else None,
            incomplete_details=None if is_whole else IncompleteDetails(),
            timings=self._generation.timings(),
        )

    def failed(self, message: str) -> ResponseObject:
        """After an error."""
        return self._ended(status="failed", error=ResponseFailure(message=message))

    def _ended(self, **update: object) -> ResponseObject:
        output = (self.item(),) if self._has_begun else ()
        usage = _usage(self._generation)
        return self._head.model_copy(update={"output": output, "usage": usage, **update})


def _text_settings(request: ResponsesRequest) -> TextSettings:
    form = None if request.text is None else request.text.format
    if form is None:
        return TextSettings()
    return TextSettings(format=form.model_dump(by_alias=True, exclude_unset=True))


def _output_logprobs(logprobs: Sequence[TokenLogprob]) -> tuple[OutputLogprob, ...]:
    """Log-probabilities as a response has them, whose `bytes` are never null."""
    return tuple(
        OutputLogprob(
            token=one.token,
            bytes=one.bytes or (),
            logprob=one.logprob,
            top_logprobs=tuple(_output_top(top) for top in one.top_logprobs),
        )
        for one in logprobs
    )


def _output_top(top: TopLogprob) -> OutputTopLogprob:
    return OutputTopLogprob(token=top.token, bytes=top.bytes or (), logprob=top.logprob)


def _usage(generation: Generation) -> ResponseUsage:
    usage = generation.usage()
    details = usage.prompt_tokens_details
    return ResponseUsage(
        input_tokens=usage.prompt_tokens,
        input_tokens_details=InputTokensDetails(
            cached_tokens=details.cached_tokens,
            image_tokens=details.image_tokens,
            text_tokens=details.text_tokens,
        ),
        output_tokens=usage.completion_tokens,
        total_tokens=usage.total_tokens,
    )
