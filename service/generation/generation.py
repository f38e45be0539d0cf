"""One admitted request: encode, generate, count. Knows no HTTP and no tensors' contents."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from service.engine.sampling_params import SamplingParams
from service.engine.token_constraint import TokenConstraint
from service.engine.token_events import EngineRequest, ImageSpan, TokenEvent
from service.errors import EngineError, NotReadyError
from service.generation.admission import AdmissionSlot
from service.generation.grounding import locate
from service.generation.stopwatch import Stopwatch
from service.generation.text_stream import TextDelta, TextStream
from service.prompt.chat_template import RenderedPrompt
from service.protocol.chat_response import CompletionTokensDetails, PromptTokensDetails, Usage
from service.protocol.grounding import GroundedRegion
from service.protocol.timings import Timings
from service.vision.decode import ImageHeader, ImageLimits
from service.vision.worker import DecodedSlice, EncodedSlice, PendingImage


class TokenEngine(Protocol):
    """What generation needs of service.engine.engine.Engine."""

    @property
    def is_healthy(self) -> bool: ...
    @property
    def max_model_len(self) -> int: ...
    @property
    def max_num_seqs(self) -> int: ...
    def max_new_tokens(self, num_prompt_tokens: int, num_seqs: int = 1) -> int: ...
    def stream(self, request: EngineRequest) -> AsyncGenerator[TokenEvent, None]: ...
    def abort(self, request_id: str, index: int | None = None) -> None: ...


class ImageWorker(Protocol):
    """What generation needs of service.vision.worker.VisionWorker."""

    async def read_images(
        self, sources: Sequence[tuple[str | bytes, str]], limits: ImageLimits
    ) -> list[tuple[bytes, ImageHeader]]: ...
    async def decode(self, images: Sequence[PendingImage]) -> list[tuple[DecodedSlice, ...]]: ...
    async def encode_slices(
        self, images: Sequence[tuple[DecodedSlice, ...]]
    ) -> list[tuple[EncodedSlice, ...]]: ...


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What is known of a request from its text and its images' headers."""

    prompt: RenderedPrompt
    sampling: SamplingParams
    constraint: TokenConstraint | None
    num_image_tokens: int  # slots of the prompt
    cache_salt: bytes
    image_sizes: tuple[tuple[int, int], ...]  # (width, height), upright
    wants_timings: bool
    priority: int


class Generation:
    """One admitted request. Iterate deltas() once, then close()."""

    def __init__(
        self,
        request_id: str,
        plan: Plan,
        images: list[tuple[DecodedSlice, ...]],
        stages: tuple[ImageWorker, TokenEngine, tuple[TextStream, ...]],
        slot: AdmissionSlot,
        running: set["Generation"],
        stopwatch: Stopwatch,
    ) -> None:
        self.id = request_id
        self._plan = plan
        self._decoded = images
        self._images, self._engine, self._texts = stages
        self._slot = slot
        self._running = running
        self._stopwatch = stopwatch
        self._aborted = False
        self._num_cached_tokens = 0

    async def deltas(self) -> AsyncGenerator[TextDelta, None]:
        """One delta per engine event, the last of each choice with a finish_reason; closing it early ends
        the generation.

        Raises EngineError if the engine or the encoder fails, NotReadyError if the service shuts down.
        """
        with self._stopwatch.on_images():
            request = await self._encode()
        if self._aborted:
            raise NotReadyError("the service is shutting down")
        self._stopwatch.submit()
        async with aclosing(self._engine.stream(request)) as events:
            async for event in events:
                if event.finish_reason == "error":
                    raise EngineError("the engine failed")
                if event.finish_reason == "abort":
                    raise NotReadyError("the service is shutting down")
                self._num_cached_tokens += event.num_cached_tokens  # the first event tells, the others say 0
                text = self._texts[event.index]
                if text.is_finished:  # the engine had not heard of its stop string yet
                    continue
                self._stopwatch.token(event.times)
                delta = text.push(event)
                yield delta
                if all(text.is_finished for text in self._texts):
                    return
                if delta.finish_reason is not None and event.finish_reason is None:
                    self._engine.abort(self.id, event.index)

    @property
    def sampling(self) -> SamplingParams:
        return self._plan.sampling

    @property
    def num_choices(self) -> int:
        return len(self._texts)

    @property
    def may_call(self) -> bool:
        """Whether answers may be calls."""
        return self._texts[0].may_call

    @property
    def has_logprobs(self) -> bool:
        """Whether deltas come with log-probabilities."""
        return self._plan.sampling.logprobs is not None

    def grounding(self, delta: TextDelta) -> tuple[GroundedRegion, ...] | None:
        """What a choice's last delta marks in the images; None in all others, and if nobody asked."""
        return None if delta.regions is None else locate(delta.regions, self._plan.image_sizes)

    def timings(self) -> Timings | None:
        """As of the last delta; None before the first, and if nobody asked."""
        return self._stopwatch.read() if self._plan.wants_timings else None

    def usage(self) -> Usage:
        """As of the last delta, all choices together."""
        num_prompt = len(self._plan.prompt.token_ids)
        num_answer = sum(text.num_tokens for text in self._texts)
        num_slots = self._plan.num_image_tokens
        return Usage(
            prompt_tokens=num_prompt,
            completion_tokens=num_answer,
            total_tokens=num_prompt + num_answer,
            prompt_tokens_details=PromptTokensDetails(
                cached_tokens=self._num_cached_tokens,
                image_tokens=num_slots,
                text_tokens=num_prompt - num_slots,
            ),
            completion_tokens_details=CompletionTokensDetails(text_tokens=num_answer),
        )

    def abort(self) -> None:
        """End it from outside."""
        self._aborted = True
        self._engine.abort(self.id)

    def close(self) -> None:
        """Give the place back; idempotent."""
        self._running.discard(self)
        self._slot.release()

    async def _encode(self) -> EngineRequest:
        decoded, self._decoded = self._decoded, []  # the pixels are not needed while the answer is made
        images = await self._images.encode_slices(decoded)
        spans = []
        for slots in self._plan.prompt.image_slots:
            encoded = images[slots.image_index][slots.slice_index]
            spans.append(ImageSpan(slots.start, encoded.embeddings, encoded.digest))
        plan = self._plan
        return EngineRequest(
            self.id,
            plan.prompt.token_ids,
            tuple(spans),
            plan.sampling,
            plan.cache_salt,
            plan.priority,
            plan.constraint,
        )
