"""Runs one sequence at a time through the IR as it lies on disk, its cache inside; knows no queue."""

from collections.abc import Callable
from typing import cast

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from service.engine.batch import Batch, ScheduledChunk
from service.engine.model_runner import place_images


class StatefulRunner:
    """Follows one sequence from its first token on. Not thread-safe: one engine thread uses it.

    What the model has seen cannot be shared, cut or taken up again, so a batch has one chunk, which begins
    anew or goes on exactly where the last one ended. (Beams would be rows of this one sequence: `beam_idx`
    names the row each goes on from.)
    """

    def __init__(self, language_model: ov.CompiledModel, text_embeddings: ov.CompiledModel) -> None:
        self._request = language_model.create_infer_request()
        self._text_request = text_embeddings.create_infer_request()
        self._vocab_size = int(language_model.output(0).partial_shape[-1].get_length())
        self._sequence_id: int | None = None  # whose tokens the state holds
        self._num_computed = 0  # how many

    def run(self, batch: Batch, beside: Callable[[], None] | None = None) -> NDArray[np.float32]:
        """Logits [num_sampled, vocab_size], a copy. Raises RuntimeError if the state is not the chunk's.

        `beside` is called when the model has run: one sequence has one mask at most.
        """
        if len(batch.chunks) != 1:
            raise RuntimeError("a stateful model runs one sequence at a time")
        chunk = batch.chunks[0]
        self._find_place(chunk)
        begin, end = chunk.past_len, chunk.past_len + len(chunk.token_ids)
        self._sequence_id = None  # nobody's, if the run fails
        self._request.infer(
            {
                "inputs_embeds": self._embed(chunk),
                "attention_mask": np.ones((1, end), dtype=np.int64),
                "position_ids": np.arange(begin, end, dtype=np.int64)[None],
                "beam_idx": np.zeros(1, dtype=np.int32),
            },
            share_inputs=True,
        )
        if beside is not None:
            beside()
        self._sequence_id, self._num_computed = chunk.sequence_id, end
        if not chunk.samples:
            return np.empty((0, self._vocab_size), dtype=np.float32)
        logits = cast(NDArray[np.float32], self._request.get_output_tensor(0).data)
        return logits[:, -1].astype(np.float32, copy=True)

    def _find_place(self, chunk: ScheduledChunk) -> None:
        if chunk.past_len == 0:
            self._request.reset_state()
        elif (chunk.sequence_id, chunk.past_len) != (self._sequence_id, self._num_computed):
            raise RuntimeError("a stateful model goes on only where it stopped")

    def _embed(self, chunk: ScheduledChunk) -> NDArray[np.float32]:
        """[1, num_new_tokens, hidden_size]: rows of the table, image rows over their slots."""
        self._text_request.infer({"input_ids": chunk.token_ids[None]})
        rows: NDArray[np.float32] = np.array(self._text_request.get_output_tensor(0).data, dtype=np.float32)
        place_images(chunk, rows[0])
        return rows
