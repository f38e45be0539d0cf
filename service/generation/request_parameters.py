"""From the fields of a request to sampling parameters: defaults, contradictions, what is not implemented."""

import re
from typing import TypeVar

from service.engine.sampling_params import SamplingParams
from service.errors import ContextLengthError, InvalidValueError, UnsupportedFieldError
from service.generation.choice_parameters import ChoiceParams
from service.protocol.answer_request import AnswerRequest
from service.protocol.completion_request import CompletionRequest
from service.protocol.field_state import Refused
from service.protocol.responses_request import ResponsesRequest
from service.protocol.sampling_fields import ChoiceFields, SamplingFields
from service.protocol.wire_model import RequestModel

# What the published model's chat() samples with (openbmb/MiniCPM-V-2, modeling_minicpmv.py).
DEFAULT_MAX_TOKENS = 1024
DEFAULT_COMPLETION_TOKENS = 16  # OpenAI's, of the completions endpoint
DEFAULT_TEMPERATURE = 0.7
DEFAULT_TOP_P = 0.8
DEFAULT_TOP_K = 100
DEFAULT_REPETITION_PENALTY = 1.05

# sentencepiece's own limit for a piece in training, and the length of the published model's longest.
MAX_CHARACTERS_PER_TOKEN = 16

_T = TypeVar("_T")
_TOKEN_ID = re.compile(r"0|[1-9][0-9]{0,9}")
_SEED_MASK = (1 << 64) - 1  # the engine's generator takes no negative seed


def refuse_unsupported(model: RequestModel, path: str = "") -> None:
    """Raise UnsupportedFieldError for the first field marked Refused that asks for something."""
    for name, field in type(model).model_fields.items():
        value, where = getattr(model, name), f"{path}{name}"
        for mark in field.metadata:
            if isinstance(mark, Refused) and not mark.accepts(value):
                raise UnsupportedFieldError(f"this value of {where} is not supported by this server", where)
        for suffix, nested in _nested(value):
            refuse_unsupported(nested, f"{where}{suffix}.")


def _nested(value: object) -> list[tuple[str, RequestModel]]:
    if isinstance(value, RequestModel):
        return [("", value)]
    items = value if isinstance(value, list) else []
    return [(f"[{index}]", item) for index, item in enumerate(items) if isinstance(item, RequestModel)]


def check_stream_fields(request: ChoiceFields) -> None:
    """Raise InvalidValueError where a stream without usage has no place for what is asked for."""
    options = request.stream_options
    has_usage = options is not None and options.include_usage
    if request.timings and request.stream and not has_usage:
        raise InvalidValueError("timings of a stream need stream_options.include_usage", "timings")
    if options is not None and options.continuous_usage_stats and not has_usage:
        raise InvalidValueError(
            "continuous_usage_stats needs include_usage", "stream_options.continuous_usage_stats"
        )


def check_text_length(num_characters: int, max_model_len: int, field: str) -> None:
    """Raise ContextLengthError for a text that cannot fit, before time is spent on tokenising it."""
    if num_characters > max_model_len * MAX_CHARACTERS_PER_TOKEN:
        raise ContextLengthError(
            f"{field}: {num_characters} characters do not fit into a context of {max_model_len} tokens", field
        )


def read_sampling(
    request: AnswerRequest, choices: ChoiceParams, num_prompt_tokens: int, room: int, vocab_size: int
) -> SamplingParams:
    """Sampling parameters of a request whose prompt has `num_prompt_tokens` tokens, image slots included.

    Raises ContextLengthError if an answer does not fit into the `room` tokens there are for each,
    InvalidValueError for fields that contradict each other or name tokens outside the vocabulary.
    """
    max_tokens = _read_max_tokens(request, choices, num_prompt_tokens, room)
    min_tokens = request.min_tokens or 0
    if min_tokens > max_tokens:
        raise InvalidValueError(
            f"min_tokens is {min_tokens}, but the answer has {max_tokens} tokens at most", "min_tokens"
        )
    stop_token_ids = frozenset(request.stop_token_ids or ())
    if any(token_id >= vocab_size for token_id in stop_token_ids):
        raise InvalidValueError(f"the vocabulary ends at {vocab_size - 1}", "stop_token_ids")
    temperature = _or(request.temperature, 0.0 if choices.beam_search else DEFAULT_TEMPERATURE)
    top_p, top_k = _or(request.top_p, DEFAULT_TOP_P), max(_or(request.top_k, DEFAULT_TOP_K), 0)
    return SamplingParams(
        max_tokens=max_tokens,
        temperature=temperature,
        # A top_p of 0 leaves the likeliest token, which is what top_k 1 says.
        top_p=top_p or 1.0,
        top_k=top_k if top_p else 1,
        min_p=_or(request.min_p, 0.0),
        repetition_penalty=_or(
            request.repetition_penalty, DEFAULT_REPETITION_PENALTY if temperature else 1.0
        ),
        presence_penalty=_or(request.presence_penalty, 0.0),
        frequency_penalty=_or(request.frequency_penalty, 0.0),
        seed=None if request.seed is None else request.seed & _SEED_MASK,
        min_tokens=min_tokens,
        stop_token_ids=stop_token_ids,
        ignore_eos=bool(request.ignore_eos),
        n=choices.n,
        logprobs=choices.logprobs,
        beam_search=choices.beam_search,
        logit_bias=_read_logit_bias(request, vocab_size),
    )


def read_stop_strings(request: SamplingFields) -> tuple[str, ...]:
    """The strings that end the answer."""
    if isinstance(request.stop, str):
        return (request.stop,)
    return tuple(request.stop or ())


def _read_max_tokens(request: AnswerRequest, choices: ChoiceParams, num_prompt_tokens: int, room: int) -> int:
    asked, default = _asked_tokens(request)
    if room < (asked or 1):
        wanted = "" if asked is None else f" and {asked} for the answer"
        shared = "" if choices.num_seqs == 1 else f" for each of {choices.num_seqs} sequences"
        raise ContextLengthError(
            f"the context holds {num_prompt_tokens + room} tokens{shared}, but {num_prompt_tokens} are "
            f"needed for the {request.prompt_field}{wanted}; shorten it, send fewer images or ask for fewer "
            "tokens",
            request.prompt_field,
        )
    return min(room, default) if asked is None else asked


def _asked_tokens(request: AnswerRequest) -> tuple[int | None, int]:
    """(the answer's length as asked for, if it was; else no more than this)."""
    if isinstance(request, CompletionRequest):
        return request.max_tokens, DEFAULT_COMPLETION_TOKENS
    if isinstance(request, ResponsesRequest):
        return request.max_output_tokens, DEFAULT_MAX_TOKENS
    asked = request.max_completion_tokens if request.max_tokens is None else request.max_tokens
    if request.max_completion_tokens not in (None, asked):
        raise InvalidValueError("max_tokens and max_completion_tokens differ; send one of them", "max_tokens")
    return asked, DEFAULT_MAX_TOKENS


def _read_logit_bias(request: SamplingFields, vocab_size: int) -> tuple[tuple[int, float], ...]:
    biases = {}
    for name, bias in (request.logit_bias or {}).items():
        if not _TOKEN_ID.fullmatch(name) or int(name) >= vocab_size:
            raise InvalidValueError(
                f"the keys of logit_bias are token ids from 0 to {vocab_size - 1}", "logit_bias"
            )
        biases[int(name)] = bias
    return tuple(biases.items())


def _or(value: _T | None, default: _T) -> _T:
    return default if value is None else value
