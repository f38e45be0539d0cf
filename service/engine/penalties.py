"""Makes tokens that were generated before less likely; knows no sequence and draws nothing."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.engine.sampling_params import SamplingParams


def has_penalties(params: SamplingParams) -> bool:
    return (
        params.repetition_penalty != 1.0 or params.presence_penalty != 0.0 or params.frequency_penalty != 0.0
    )


def penalise(
    logits: NDArray[np.float32],
    rows: Sequence[int],
    params: Sequence[SamplingParams],
    ids: Sequence[NDArray[np.int64]],
    counts: Sequence[NDArray[Any]],
) -> None:
    """Repetition (transformers: divide what is positive, multiply what is negative), then OpenAI's presence
    and frequency penalties, in place: on the entries ids[i] of row rows[i] of `logits` [n, vocab_size].

    ids[i] are distinct, counts[i] how often each was generated. All rows are done in one go: a call for each
    would cost as much as the rest of a step's sampling.
    """
    lengths = [len(row_ids) for row_ids in ids]
    strengths = [(p.repetition_penalty, p.presence_penalty, p.frequency_penalty) for p in params]
    repetition, presence, frequency = np.repeat(np.array(strengths, dtype=np.float32).T, lengths, axis=1)
    places = np.repeat(np.array(rows) * logits.shape[1], lengths)
    places += np.concatenate(ids)
    flat = logits.reshape(-1)
    values = flat[places]
    values = np.where(values > 0, values / repetition, values * repetition)
    values -= presence
    values -= frequency * np.concatenate(counts).astype(np.float32)
    flat[places] = values
