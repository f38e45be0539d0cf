"""From a request to an admitted generation: check, plan, decode. Knows no HTTP and no tensors' contents."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from service.artifacts import ImageConfig, TokenIds
from service.engine.token_constraint import TokenConstraint
from service.errors import TooLargeError
from service.generation.admission import Admission, AdmissionSlot
from service.generation.chat_messages import Dialogue, read_dialogue, read_messages
from service.generation.choice_parameters import ChoiceParams, read_choices
from service.generation.completion_prompts import CompletionPrompts
from service.generation.generation import Generation, ImageWorker, Plan, TokenEngine
from service.generation.generation_batch import GenerationBatch
from service.generation.grammar import Grammar
from service.generation.grammar_compiler import GrammarCompiler
from service.generation.remote_images import ImageFetcher, fetch_images
from service.generation.request_parameters import (
    check_stream_fields,
    check_text_length,
    read_sampling,
    read_stop_strings,
    refuse_unsupported,
)
from service.generation.stopwatch import Stopwatch
from service.generation.structured_output import check_length, read_grammar
from service.generation.text_stream import TextStream
from service.generation.token_logprobs import LogprobNames
from service.generation.tool_calls import ToolCallReader
from service.generation.tool_offer import ToolOffer, read_tools
from service.prompt.chat_template import ChatTemplate, RenderedPrompt
from service.prompt.detokenizer import Detokenizer
from service.prompt.regions import RegionReader
from service.prompt.tokenizer import Tokenizer
from service.protocol.answer_request import AnswerRequest, DialogueRequest
from service.protocol.chat_message import ChatMessage
from service.protocol.chat_request import ChatCompletionRequest
from service.protocol.completion_request import CompletionRequest
from service.protocol.sampling_fields import ChoiceFields
from service.vision.decode import ImageLimits
from service.vision.slicing import plan_slices
from service.vision.worker import DecodedSlice, PendingImage


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
class _Calls:
    """What answers may call."""

    offer: ToolOffer
    constraint: TokenConstraint  # what is a call


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
        self._prompts = CompletionPrompts(
            tokenizer, config.token_ids, config.vocab_size, config.max_in_flight
        )
        self._grammars = GrammarCompiler(tokenizer, config.vocab_size, config.token_ids.eos)
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

    async def begin(self, request: DialogueRequest) -> Generation:
        """Check all that can be refused, fetch and decode the images; what is left can only fail by us.

        The caller must close() the result. Raises InvalidValueError and its kin, OverloadedError.
        """
        choices = self._check(request)
        grammar = read_grammar(request, choices)
        tools = read_tools(request, choices)
        dialogue = self._read_dialogue(read_dialogue(request, None if tools is None else tools.text))
        slot = self._admission.enter()
        try:
            constraint = await self._compile(grammar)
            calls = None if tools is None else _Calls(tools, await self._grammars.compile(tools.grammar))
            if calls is not None and calls.offer.is_forced:
                constraint = calls.constraint
            stopwatch = Stopwatch()
            with stopwatch.on_images():
                pending = await self._read_images(dialogue)
            plan = self._plan(request, choices, constraint, self._render(dialogue, pending), pending)
            with stopwatch.on_images():
                decoded = await self._images.decode(pending)
            return self._start(_new_id(request), request, plan, decoded, slot, stopwatch, calls)
        except BaseException:
            slot.release()
            raise

    async def begin_completion(self, request: CompletionRequest) -> GenerationBatch:
        """Check everything that can be refused, and admit a generation for every prompt.

        The caller must close() the result. Raises InvalidValueError and its kin, OverloadedError.
        """
        choices = self._check(request)
        grammar = read_grammar(request, choices)
        prompts = await self._prompts.read(request, self._engine.max_model_len)
        slot = self._admission.enter(len(prompts))
        try:
            constraint = await self._compile(grammar)
            plans = [self._plan(request, choices, constraint, prompt.rendered, ()) for prompt in prompts]
            first_id = _new_id(request)
            generations = [
                self._start(f"{first_id}-{n}" if n else first_id, request, plan, [], slot, Stopwatch())
                for n, plan in enumerate(plans)
            ]
        except BaseException:
            slot.release()
            raise
        return GenerationBatch(generations, [prompt.text for prompt in prompts])

    async def render(self, messages: Sequence[ChatMessage], tools: str | None = None) -> RenderedPrompt:
        """The prompt of these messages, whether it fits or not; images are read up to their headers.

        Raises InvalidValueError and its kin, OverloadedError.
        """
        dialogue = self._read_dialogue(read_messages(messages, tools=tools))
        slot = self._admission.enter()
        try:
            images = await self._read_images(dialogue)
        finally:
            slot.release()
        return self._render(dialogue, images)

    def _check(self, request: AnswerRequest) -> ChoiceParams:
        refuse_unsupported(request)
        if isinstance(request, ChoiceFields):
            check_stream_fields(request)
        return read_choices(request, self._engine.max_num_seqs)

    async def _compile(self, grammar: Grammar | None) -> TokenConstraint | None:
        return None if grammar is None else await self._grammars.compile(grammar)

    def _read_dialogue(self, dialogue: Dialogue) -> Dialogue:
        check_text_length(dialogue.num_characters, self._engine.max_model_len, dialogue.field)
        if len(dialogue.images) > self._config.max_images:
            raise TooLargeError(f"a request may hold {self._config.max_images} images", dialogue.field)
        return dialogue

    def _render(self, dialogue: Dialogue, images: Sequence[PendingImage]) -> RenderedPrompt:
        return self._template.render(dialogue.conversation, [image.plan.grid for image in images])

    def _plan(
        self,
        request: AnswerRequest,
        choices: ChoiceParams,
        constraint: TokenConstraint | None,
        prompt: RenderedPrompt,
        images: Sequence[PendingImage],
    ) -> Plan:
        num_tokens = len(prompt.token_ids)
        room = self._engine.max_new_tokens(num_tokens, choices.num_seqs)
        sampling = read_sampling(request, choices, num_tokens, room, self._config.vocab_size)
        if constraint is not None:
            check_length(constraint, request, sampling.max_tokens)
        num_image_tokens = len(prompt.image_slots) * self._config.image.query_num
        sizes = tuple((image.header.width, image.header.height) for image in images)
        return Plan(
            prompt,
            sampling,
            constraint,
            num_image_tokens,
            (request.cache_salt or "").encode(),
            sizes,
            bool(request.timings),
            request.priority or 0,
        )

    def _start(
        self,
        request_id: str,
        request: AnswerRequest,
        plan: Plan,
        images: list[tuple[DecodedSlice, ...]],
        slot: AdmissionSlot,
        stopwatch: Stopwatch,
        calls: _Calls | None = None,
    ) -> Generation:
        strips = plan.constraint is None and not isinstance(request, CompletionRequest)
        texts = tuple(self._new_text(request, calls, strip=strips) for _ in range(plan.sampling.n))
        stages = (self._images, self._engine, texts)
        generation = Generation(request_id, plan, images, stages, slot, self._running, stopwatch)
        self._running.add(generation)
        return generation

    async def _read_images(self, dialogue: Dialogue) -> list[PendingImage]:
        config, references = self._config, dialogue.images
        sources: list[tuple[str | bytes, str]] = [(r.url, r.param) for r in references]
        if self._fetcher is not None:
            sources = await fetch_images(
                dialogue, self._fetcher, config.image_limits.max_bytes, config.max_fetched_bytes
            )
        images = await self._images.read_images(sources, config.image_limits)
        if sum(header.width * header.height for _, header in images) > config.max_total_pixels:
            raise TooLargeError(
                f"the images have more than {config.max_total_pixels} pixels together", dialogue.field
            )
        return [
            PendingImage(
                content, header, plan_slices(header.width, header.height, config.image, reference.detail)
            )
            for (content, header), reference in zip(images, references, strict=True)
        ]

    def _new_text(self, request: AnswerRequest, calls: _Calls | None, *, strip: bool) -> TextStream:
        tokenizer, token_ids = self._tokenizer, self._config.token_ids
        grounding = isinstance(request, ChatCompletionRequest) and request.grounding
        skip = request.skip_special_tokens is not False
        return TextStream(
            Detokenizer(tokenizer, token_ids, skip_special_tokens=skip, strip=False),
            read_stop_strings(request),
            include_stop=bool(request.include_stop_str_in_output),
            strip=strip,
            names=LogprobNames(tokenizer, token_ids, skip_special_tokens=skip),
            regions=RegionReader(tokenizer, token_ids) if grounding else None,
            calls=None if calls is None else self._new_reader(calls),
        )

    def _new_reader(self, calls: _Calls) -> ToolCallReader:
        is_call = None if calls.offer.is_forced else partial(self._grammars.matches, calls.constraint)
        return ToolCallReader(calls.offer.names, is_call)


def _new_id(request: AnswerRequest) -> str:
    return f"{request.id_prefix}{uuid.uuid4().hex}"
