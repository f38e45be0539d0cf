"""What goes into the engine for one request and what comes out: all that crosses its thread."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from service.engine.sampling_params import SamplingParams
from service.engine.token_constraint import TokenConstraint

FinishReason = Literal["stop", "length", "abort", "error"]


@dataclass(frozen=True, slots=True, eq=False)
class ImageSpan:
    """The slots one image or slice fills in a prompt."""

    start: int  # index of the first slot in token_ids
    embeddings: NDArray[np.float32]  # [query_num, hidden_size]
    digest: bytes  # 32 bytes: everything the embeddings depend on (pixels, size); equal digests share KV


@dataclass(frozen=True, slots=True, eq=False)
class EngineRequest:
    """A prompt ready to run. Image slots hold the pad id in token_ids; it is never embedded as text."""

    request_id: str
    token_ids: NDArray[np.int64]  # [num_prompt_tokens]
    image_spans: tuple[ImageSpan, ...]  # in order, not overlapping
    sampling: SamplingParams
    cache_salt: bytes = b""  # only requests with the same salt share KV blocks
    priority: int = 0  # lower runs earlier
    constraint: TokenConstraint | None = None  # what every answer must be; not with a beam search


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """What the model itself gives a token, before biases, constraints, penalties, temperature and filters:
    natural logarithms."""

    logprob: float  # of the token
    top: tuple[
        tuple[int, float], ...
    ] = ()  # the likeliest tokens, likeliest first, as many as were asked for


@dataclass(frozen=True, slots=True)
class StepTimes:
    """Seconds of time.monotonic()."""

    started_s: float  # the first step with the request began
    first_token_s: float  # its first token was drawn; of a beam search, the first beams were chosen


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """What one step produced for one choice of a request.

    `finish_reason` is set in exactly one event of each choice, its last one; of a request with several
    choices, `others_run` is set beside it in all but the last. "abort" follows Engine.abort, "error" a
    failure of the engine; both end all choices at once and carry no tokens. The token that ended the sequence
    (eos or a stop id) is in `token_ids` too; `stop_token_id` names it. `num_cached_tokens` stands in the
    first event that a step brings: how many of the prompt's tokens were found in the cache when the request
    was first admitted. So do `times`, but not in an event without tokens.
    """

    request_id: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason | None = None
    stop_token_id: int | None = None
    num_cached_tokens: int = 0
    index: int = 0  # of the choice
    logprobs: tuple[TokenLogprobs, ...] = ()  # of each token, if they were asked for
    others_run: bool = False
    times: StepTimes | None = field(default=None, compare=False)  # measured: equal runs differ in it

    @property
    def ends_request(self) -> bool:
        return self.finish_reason is not None and not self.others_run
