"""How one request's next tokens are chosen; knows no wire format and no text."""

from dataclasses import dataclass
from typing import Literal

EarlyStopping = bool | Literal["never"]


@dataclass(frozen=True, slots=True)
class BeamSearchParams:
    """As transformers has them: GenerationConfig's num_beams, length_penalty and early_stopping."""

    num_beams: int
    length_penalty: float = 1.0  # a hypothesis of n tokens scores its log-probability / n ** length_penalty
    early_stopping: EarlyStopping = False  # see beam_search.BeamSearch


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """Validated by the caller (generation/request_parameters.py); the engine trusts it.

    Order of application, as in the original's `generate`: logit biases, (a constraint,) repetition penalty,
    presence and frequency penalties, temperature, top_k, top_p, min_p. Penalties see generated tokens only,
    never the prompt. With `beam_search` nothing is drawn: temperature is 0, and biases and penalties act on
    log-probabilities.
    """

    max_tokens: int
    temperature: float = 0.0  # 0: greedy
    top_p: float = 1.0
    top_k: int = 0  # 0: off
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None  # None: drawn once per choice
    min_tokens: int = 0  # eos and stop ids are not chosen before that many tokens
    stop_token_ids: frozenset[int] = frozenset()  # besides eos
    ignore_eos: bool = False
    n: int = 1  # choices; of a beam search the best so many
    logprobs: int | None = None  # how many of the likeliest tokens to tell beside each; None: tell nothing
    beam_search: BeamSearchParams | None = None
    logit_bias: tuple[tuple[int, float], ...] = ()  # (token id, what is added to its logit)

    @property
    def num_seqs(self) -> int:
        """Sequences that run at once for the request."""
        return self.n if self.beam_search is None else self.beam_search.num_beams
