"""The generations of a completion's prompts as one: choices in order of prompts, one usage, one end."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

from service.generation.generation import Generation
from service.generation.text_stream import TextDelta
from service.protocol.chat_response import CompletionTokensDetails, PromptTokensDetails, Usage
from service.protocol.timings import Timings

_Item = TextDelta | Exception | None


class GenerationBatch:
    """Iterate deltas() once, then close(). Choice i of prompt p has the index p * n + i."""

    def __init__(self, generations: Sequence[Generation], prompt_texts: Sequence[str]) -> None:
        """One generation, and its prompt, for every prompt; there is at least one."""
        self._generations = generations
        self._prompt_texts = prompt_texts
        self._num_answer_tokens = 0

    @property
    def id(self) -> str:
        return self._generations[0].id

    @property
    def num_choices(self) -> int:
        return sum(generation.num_choices for generation in self._generations)

    def prompt_text(self, index: int) -> str:
        """The prompt of a choice."""
        return self._prompt_texts[index // self._generations[0].num_choices]

    @property
    def has_logprobs(self) -> bool:
        return self._generations[0].has_logprobs

    async def deltas(self) -> AsyncGenerator[TextDelta, None]:
        """The deltas of all as they come; closing it early, or a failure of one, ends all.

        Raises what Generation.deltas() does.
        """
        came: asyncio.Queue[_Item] = asyncio.Queue(maxsize=1)
        tasks = [
            asyncio.create_task(_forward(generation, index * generation.num_choices, came))
            for index, generation in enumerate(self._generations)
        ]
        num_running = len(tasks)
        try:
            while num_running:
                item = await came.get()
                if isinstance(item, Exception):
                    raise item
                if item is None:
                    num_running -= 1
                    continue
                self._num_answer_tokens += item.num_tokens
                yield item
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def usage(self) -> Usage:
        """As of the last delta, all prompts and choices together."""
        prompts = [generation.usage() for generation in self._generations]
        num_prompt = sum(usage.prompt_tokens for usage in prompts)
        num_cached = sum(usage.prompt_tokens_details.cached_tokens for usage in prompts)
        num_answer = self._num_answer_tokens  # the generations may be ahead of what was taken from them
        return Usage(
            prompt_tokens=num_prompt,
            completion_tokens=num_answer,
            total_tokens=num_prompt + num_answer,
            prompt_tokens_details=PromptTokensDetails(
                cached_tokens=num_cached, image_tokens=0, text_tokens=num_prompt
            ),
            completion_tokens_details=CompletionTokensDetails(text_tokens=num_answer),
        )

    def timings(self) -> Timings | None:
        """As of the last delta, the longest of every stage; None before the first, and if nobody asked."""
        told = [timings for generation in self._generations if (timings := generation.timings()) is not None]
        if not told:
            return None
        return Timings(
            image_ms=max(timings.image_ms for timings in told),
            queue_ms=max(timings.queue_ms for timings in told),
            prefill_ms=max(timings.prefill_ms for timings in told),
            decode_ms=max(timings.decode_ms for timings in told),
        )

    def close(self) -> None:
        """Give the places back; idempotent."""
        for generation in self._generations:
            generation.close()


async def _forward(generation: Generation, first_index: int, came: asyncio.Queue[_Item]) -> None:
    """Put everything the generation has to say into the queue, None or its failure last."""
    try:
        async with aclosing(generation.deltas()) as deltas:
            async for delta in deltas:
                await came.put(replace(delta, index=first_index + delta.index))
    except Exception as error:
        await came.put(error)
    else:
        await came.put(None)
