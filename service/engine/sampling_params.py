"""How one request's next tokens are chosen; knows no wire format and no text."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """Validated by the caller (generation/request_parameters.py); the engine trusts it.

    Order of application, as in the original's `generate`: repetition penalty, presence and frequency
    penalties, temperature, top_k, top_p, min_p. Penalties see generated tokens only, never the prompt.
    """

    max_tokens: int
    temperature: float = 0.0  # 0: greedy
    top_p: float = 1.0
    top_k: int = 0  # 0: off
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None  # None: drawn once per request
    min_tokens: int = 0  # eos and stop ids are not chosen before that many tokens
    stop_token_ids: frozenset[int] = frozenset()  # besides eos
    ignore_eos: bool = False
