"""From the prompt of a completion to token ids, one prompt after another; renders no chat format."""

import asyncio
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.artifacts import TokenIds
from service.errors import ContextLengthError, InvalidValueError
from service.generation.request_parameters import check_text_length
from service.prompt.chat_template import RenderedPrompt
from service.prompt.token_text import decode_tokens
from service.prompt.tokenizer import Tokenizer
from service.protocol.completion_request import CompletionRequest, Prompt


@dataclass(frozen=True, slots=True, eq=False)
class CompletionPrompt:
    """A text that is to be gone on with."""

    text: str  # what `echo` shows
    token_ids: NDArray[np.int64]  # [num_prompt_tokens]

    @property
    def rendered(self) -> RenderedPrompt:
        return RenderedPrompt(self.token_ids, ())


class CompletionPrompts:
    """Reads prompts; stateless, so any number of requests may share it."""

    def __init__(self, tokenizer: Tokenizer, token_ids: TokenIds, vocab_size: int, max_prompts: int) -> None:
        """`max_prompts` is how many this server can ever take at once."""
        self._max_prompts = max_prompts
        self._tokenizer = tokenizer
        self._bos = token_ids.bos
        self._vocab_size = vocab_size
        # Without an image there is nothing these could stand for; the pad id marks a slot.
        self._image_ids = {
            token_ids.pad,
            token_ids.image_start,
            token_ids.image_end,
            token_ids.slice_start,
            token_ids.slice_end,
        }

    async def read(self, request: CompletionRequest, max_model_len: int) -> tuple[CompletionPrompt, ...]:
        """The request's prompts. Raises ContextLengthError for one that cannot fit, InvalidValueError for too
        many, and for ids outside the vocabulary or of images: docs/decisions/0019-raw-continuation.md
        """
        fields = _split(request.prompt)
        if len(fields) > self._max_prompts:
            raise InvalidValueError(
                f"prompt: this server takes at most {self._max_prompts} prompts at once", "prompt"
            )
        prompts = []
        for field, prompt in fields:
            if isinstance(prompt, str):
                prompts.append(self._from_text(prompt, max_model_len, field))
            else:
                prompts.append(self._from_ids(prompt, max_model_len, field))
            await asyncio.sleep(0)  # others need the event loop too
        return tuple(prompts)

    def _from_text(self, text: str, max_model_len: int, field: str) -> CompletionPrompt:
        """As a user types it: no character of it becomes a special token."""
        check_text_length(len(text), max_model_len, field)
        return CompletionPrompt(text, np.array([self._bos, *self._tokenizer.encode_text(text)], np.int64))

    def _from_ids(self, ids: list[int], max_model_len: int, field: str) -> CompletionPrompt:
        """As they are: bos comes first if it was sent."""
        if len(ids) > max_model_len:
            raise ContextLengthError(
                f"{field}: {len(ids)} tokens do not fit into a context of {max_model_len}", field
            )
        for index, token_id in enumerate(ids):
            if token_id >= self._vocab_size:
                raise InvalidValueError(f"the vocabulary ends at {self._vocab_size - 1}", f"{field}[{index}]")
            if token_id in self._image_ids:
                raise InvalidValueError(f"token {token_id} stands for an image", f"{field}[{index}]")
        shown = ids[1:] if ids[0] == self._bos else ids
        return CompletionPrompt(decode_tokens(self._tokenizer, shown), np.array(ids, np.int64))


def _split(prompt: Prompt) -> list[tuple[str, str | list[int]]]:
    """(where it stands, prompt) of each."""
    if isinstance(prompt, str):
        return [("prompt", prompt)]
    ids: list[int] = []
    several: list[tuple[str, str | list[int]]] = []
    for index, one in enumerate(prompt):
        if isinstance(one, int):
            ids.append(one)
        elif isinstance(one, str | list):
            several.append((f"prompt[{index}]", one))
    return several or [("prompt", ids)]
