"""One request's life: plan, admit, decode, encode, generate. Knows no HTTP and no tensors' contents."""

import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from service.artifacts import ImageConfig, TokenIds
from service.engine.sampling_params import SamplingParams
from service.engine.token_events import EngineRequest, ImageSpan, TokenEvent
from service.errors import EngineError, NotReadyError, TooLargeError
from service.generation.admission import Admission, AdmissionSlot
from service.generation.chat_messages import ImageReference, read_messages
from service.generation.choice_parameters import ChoiceParams, read_choices
from service.generation.grounding import locate
from service.generation.remote_images import ImageFetcher, fetch_images
from service.generation.request_parameters import (
    check_text_length,
    check_timings,
    read_sampling,
    read_stop_strings,
    refuse_unsupported,
)
from service.generation.stopwatch import Stopwatch
from service.generation.text_stream import TextDelta, TextStream
from service.generation.token_logprobs import LogprobNames
from service.prompt.chat_template import ChatTemplate, RenderedPrompt
from service.prompt.conversation import Conversation
from service.prompt.detokenizer import Detokenizer
from service.prompt.regions import RegionReader
from service.prompt.tokenizer import Tokenizer
from service.protocol.chat_message import ChatMessage
from service.protocol.chat_request import ChatCompletionRequest
from service.protocol.chat_response import CompletionTokensDetails, PromptTokensDetails, Usage
from service.protocol.grounding import GroundedRegion
from service.protocol.timings import Timings
from service.vision.decode import ImageHeader, ImageLimits
from service.vision.slicing import plan_slices
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


@dataclass(frozen=True, slots=True)
class GeneratorConfig:
    """What the model is like and what a request may cost."""

    image: ImageConfig
    token_ids: TokenIds
    vocab_size: int
    max_in_flight: int
    max_images: int
    image_limits: ImageLimits
    max_total_pixels: int  # of all images of a request
    max_fetched_bytes: int  # of all images of a request that are fetched


@dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    """What is known of a request from its text and its images' headers."""

    prompt: RenderedPrompt
    sampling: SamplingParams
    num_image_tokens: int  # slots of the prompt
    cache_salt: bytes
    image_sizes: tuple[tuple[int, int], ...]  # (width, height), upright
    wants_timings: bool
    priority: int


class Generator:
    """Begins generations. Belongs to the event loop."""

    def __init__(
        self,
        engine: TokenEngine,
        images: ImageWorker,
        tokenizer: Tokenizer,
        config: GeneratorConfig,
        fetcher: ImageFetcher | None = None,
    ) -> None:
        """Without `fetcher`, only images that stand in the request itself are taken."""
        self._engine = engine
        self._images = images
        self._fetcher = fetcher
        self._tokenizer = tokenizer
        self._config = config
        self._template = ChatTemplate(tokenizer, config.token_ids, config.image.query_num)
        self._admission = Admission(config.max_in_flight)
        self._running: set[Generation] = set()

    @property
    def is_healthy(self) -> bool:
        """Whether the engine takes requests."""
        return self._engine.is_healthy

    @property
    def tokenizer(self) -> Tokenizer:
        return self._tokenizer

    @property
    def max_model_len(self) -> int:
        """Tokens of a prompt and its answer together."""
        return self._engine.max_model_len

    @property
    def vocab_size(self) -> int:
        return self._config.vocab_size

    @property
    def bos_token_id(self) -> int:
        return self._config.token_ids.bos

    @property
    def num_in_flight(self) -> int:
        return self._admission.num_in_flight

    def abort_all(self) -> None:
        """End every generation under way with NotReadyError."""
        for generation in self._running:
            generation.abort()

    async def begin(self, request: ChatCompletionRequest) -> "Generation":
        """Check all that can be refused, fetch and decode the images; what is left can only fail by us.

        The caller must close() the result. Raises InvalidValueError and its kin, OverloadedError.
        """
        refuse_unsupported(request)
        check_timings(request)
        choices = read_choices(request, self._engine.max_num_seqs)
        conversation, references = self._read_messages(request.messages)
        slot = self._admission.enter()
        try:
            stopwatch = Stopwatch()
            with stopwatch.on_images():
                pending = await self._read_images(references)
            plan = self._plan(request, choices, conversation, pending)
            with stopwatch.on_images():
                decoded = await self._images.decode(pending)
            texts = tuple(self._new_text(request) for _ in range(choices.n))
            stages = (self._images, self._engine, texts)
            generation = Generation(plan, decoded, stages, slot, self._running, stopwatch)
        except BaseException:
            slot.release()
            raise
        self._running.add(generation)
        return generation

    async def render(self, messages: Sequence[ChatMessage]) -> RenderedPrompt:
        """The prompt of these messages, whether it fits or not; images are read up to their headers.

        Raises InvalidValueError and its kin, OverloadedError.
        """
        conversation, references = self._read_messages(messages)
        slot = self._admission.enter()
        try:
            images = await self._read_images(references)
        finally:
            slot.release()
        return self._template.render(conversation, [image.plan.grid for image in images])

    def _read_messages(
        self, messages: Sequence[ChatMessage]
    ) -> tuple[Conversation, tuple[ImageReference, ...]]:
        conversation, references = read_messages(messages)
        check_text_length(conversation, self._engine.max_model_len)
        if len(references) > self._config.max_images:
            raise TooLargeError(f"a request may hold {self._config.max_images} images", "messages")
        return conversation, references

    def _plan(
        self,
        request: ChatCompletionRequest,
        choices: ChoiceParams,
        conversation: Conversation,
        images: Sequence[PendingImage],
    ) -> _Plan:
        prompt = self._template.render(conversation, [image.plan.grid for image in images])
        num_tokens = len(prompt.token_ids)
        room = self._engine.max_new_tokens(num_tokens, choices.num_seqs)
        sampling = read_sampling(request, choices, num_tokens, room, self._config.vocab_size)
        num_image_tokens = len(prompt.image_slots) * self._config.image.query_num
        sizes = tuple((image.header.width, image.header.height) for image in images)
        return _Plan(
            prompt,
            sampling,
            num_image_tokens,
            (request.cache_salt or "").encode(),
            sizes,
            bool(request.timings),
            request.priority or 0,
        )

    async def _read_images(self, references: Sequence[ImageReference]) -> list[PendingImage]:
        config = self._config
        sources: list[tuple[str | bytes, str]] = [(r.url, r.param) for r in references]
        if self._fetcher is not None:
            sources = await fetch_images(
                references, self._fetcher, config.image_limits.max_bytes, config.max_fetched_bytes
            )
        images = await self._images.read_images(sources, config.image_limits)
        if sum(header.width * header.height for _, header in images) > config.max_total_pixels:
            raise TooLargeError(
                f"the images have more than {config.max_total_pixels} pixels together", "messages"
            )
        return [
            PendingImage(
                content, header, plan_slices(header.width, header.height, config.image, reference.detail)
            )
            for (content, header), reference in zip(images, references, strict=True)
        ]

    def _new_text(self, request: ChatCompletionRequest) -> TextStream:
        tokenizer, token_ids = self._tokenizer, self._config.token_ids
        skip = request.skip_special_tokens is not False
        return TextStream(
            Detokenizer(tokenizer, token_ids, skip_special_tokens=skip, strip=False),
            read_stop_strings(request),
            include_stop=bool(request.include_stop_str_in_output),
            names=LogprobNames(tokenizer, token_ids, skip_special_tokens=skip),
            regions=RegionReader(tokenizer, token_ids) if request.grounding else None,
        )


class Generation:
    """One admitted request. Iterate deltas() once, then close()."""

    def __init__(
        self,
        plan: _Plan,
        images: list[tuple[DecodedSlice, ...]],
        stages: tuple[ImageWorker, TokenEngine, tuple[TextStream, ...]],
        slot: AdmissionSlot,
        running: set["Generation"],
        stopwatch: Stopwatch,
    ) -> None:
        self.id = f"chatcmpl-{uuid.uuid4().hex}"
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
    def num_choices(self) -> int:
        return len(self._texts)

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
            self.id, plan.prompt.token_ids, tuple(spans), plan.sampling, plan.cache_salt, plan.priority
        )
