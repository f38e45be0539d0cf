"""From the fields of a request to its choices: how many, by which search, with log-probabilities or not."""

from dataclasses import dataclass

from service.engine.sampling_params import BeamSearchParams
from service.errors import InvalidValueError, UnsupportedFieldError
from service.protocol.answer_request import AnswerRequest
from service.protocol.completion_request import CompletionRequest
from service.protocol.responses_request import LOGPROBS, ResponsesRequest
from service.protocol.sampling_fields import ChoiceFields

# HF's name first, then vLLM's: its best_of was the width of a beam search before n was.
_WIDTHS = ("num_beams", "best_of", "n")


@dataclass(frozen=True, slots=True)
class ChoiceParams:
    """What SamplingParams has under the same names."""

    n: int
    logprobs: int | None
    beam_search: BeamSearchParams | None

    @property
    def num_seqs(self) -> int:
        """Sequences that run at once."""
        return self.n if self.beam_search is None else self.beam_search.num_beams


def read_choices(request: AnswerRequest, max_num_seqs: int) -> ChoiceParams:
    """Raises InvalidValueError for fields that contradict each other or ask for more than `max_num_seqs`
    sequences at once, UnsupportedFieldError for combinations that are not implemented."""
    logprobs = _read_logprobs(request)
    if isinstance(request, ResponsesRequest):  # one answer, never a beam search
        return ChoiceParams(1, logprobs, None)
    num_beams = _read_num_beams(request)
    n = request.n or 1
    if num_beams is None:
        _refuse_without_beams(request, n)
    else:
        _refuse_with_beams(request, logprobs)
        if n > num_beams:
            raise InvalidValueError(f"n is {n}, but a search with {num_beams} beams has no more answers", "n")
    if (num_beams or n) > max_num_seqs:
        field = "n" if num_beams is None else _width_field(request)
        raise InvalidValueError(f"{field}: this server runs at most {max_num_seqs} sequences at once", field)
    return ChoiceParams(n, logprobs, _beam_search(request, num_beams))


def _read_num_beams(request: ChoiceFields) -> int | None:
    """The width of the beam search asked for; None where none is."""
    if request.use_beam_search is False and (request.num_beams or 1) > 1:
        raise InvalidValueError("use_beam_search is false, but num_beams asks for one", "use_beam_search")
    if not request.use_beam_search:
        return request.num_beams if (request.num_beams or 1) > 1 else None
    width: int = getattr(request, _width_field(request)) or 1
    if width == 1:
        raise InvalidValueError(
            "use_beam_search needs two beams or more: send num_beams, best_of or n", "use_beam_search"
        )
    if request.best_of not in (None, width):
        raise InvalidValueError("num_beams and best_of differ; send one of them", "best_of")
    return width


def _width_field(request: ChoiceFields) -> str:
    return next((name for name in _WIDTHS if getattr(request, name) is not None), "n")


def _refuse_without_beams(request: ChoiceFields, n: int) -> None:
    if request.best_of not in (None, n):
        raise UnsupportedFieldError("best_of other than n is supported with use_beam_search only", "best_of")
    if request.length_penalty not in (None, 1.0):
        raise UnsupportedFieldError("length_penalty is supported in a beam search only", "length_penalty")
    if request.early_stopping not in (None, False):
        raise UnsupportedFieldError("early_stopping is supported in a beam search only", "early_stopping")


def _refuse_with_beams(request: ChoiceFields, logprobs: int | None) -> None:
    if request.temperature:
        raise UnsupportedFieldError(
            "a beam search does not sample: leave temperature out or 0", "temperature"
        )
    if not request.use_beam_search and request.best_of not in (None, request.num_beams, request.n or 1):
        raise InvalidValueError("num_beams and best_of differ; send one of them", "best_of")
    if logprobs is not None:
        raise UnsupportedFieldError("logprobs are not supported in a beam search", "logprobs")


def _read_logprobs(request: AnswerRequest) -> int | None:
    """How many of the likeliest tokens to tell beside each; None: tell nothing."""
    if isinstance(request, CompletionRequest):
        if request.echo and request.logprobs is not None:
            raise UnsupportedFieldError("echo is not supported together with logprobs", "echo")
        return request.logprobs
    if isinstance(request, ResponsesRequest):
        asked, field = LOGPROBS in (request.include or ()), f"include to hold '{LOGPROBS}'"
    else:
        asked, field = bool(request.logprobs), "logprobs to be true"
    if asked:
        return request.top_logprobs or 0
    if request.top_logprobs:
        raise InvalidValueError(f"top_logprobs needs {field}", "top_logprobs")
    return None


def _beam_search(request: ChoiceFields, num_beams: int | None) -> BeamSearchParams | None:
    if num_beams is None:
        return None
    length_penalty = 1.0 if request.length_penalty is None else request.length_penalty
    return BeamSearchParams(num_beams, length_penalty, request.early_stopping or False)
