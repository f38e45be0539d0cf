"""The engine as the rest of the service sees it: requests in, token events out, one thread behind.

Two borders are crossed here. Requests and aborts go to the thread through an inbox under a condition, on
which an idle engine sleeps; all events of one step come back in a single call_soon_threadsafe.
"""

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from service.engine.answer_score import TokenScore, score_answer
from service.engine.block_digest import prompt_digests
from service.engine.block_manager import BlockManager
from service.engine.scheduler import PrefixCaching, Scheduler, min_batched_tokens
from service.engine.step_loop import EngineStats, Runner, StepLoop
from service.engine.token_events import EngineRequest, FinishReason, TokenEvent
from service.errors import ContextLengthError, InvalidValueError, NotReadyError, StartupError

logger = logging.getLogger(__name__)

_State = Literal["new", "running", "stopping", "stopped", "failed"]


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Sizes of one engine."""

    max_position_embeddings: int  # the model's context, tokens
    eos_token_id: int
    kv_cache_bytes: int  # memory for keys and values
    max_num_seqs: int = 16  # sequences that run at once
    max_num_batched_tokens: int = 512  # tokens per step, at least min_batched_tokens
    enable_prefix_caching: bool = True  # requests share the KV blocks of equal beginnings
    num_speculative_tokens: int = 0  # guessed and checked in one step at most; 0: none


class EngineModel(Protocol):
    """What the engine needs of a model: LanguageModel, StatefulModel, or a script in tests."""

    @property
    def is_paged(self) -> bool:
        """Whether sequences run side by side and share blocks; if not, they take turns and share nothing."""
        ...

    @property
    def block_size(self) -> int: ...
    @property
    def block_bytes(self) -> int: ...
    @property
    def quantises_kv_cache(self) -> bool: ...
    @property
    def hidden_size(self) -> int: ...
    @property
    def vocab_size(self) -> int: ...
    def new_runner(self, num_blocks: int, max_num_seqs: int, max_num_batched_tokens: int) -> Runner: ...


@dataclass(frozen=True, slots=True)
class _Abort:
    request_id: str
    index: int | None  # of the choice; None: all of them


@dataclass(frozen=True, slots=True)
class _Unfinished:
    events: asyncio.Queue[TokenEvent]
    priority: int


class Engine:
    """One model, one KV cache, one thread. stream() belongs to the event loop, the rest to any thread."""

    def __init__(self, language_model: EngineModel, config: EngineConfig) -> None:
        """Allocate the KV cache. Raises StartupError if it holds not one block, or the sizes contradict."""
        if not language_model.is_paged:
            # What a stateful model has seen cannot be taken back, so nothing is guessed.
            config = replace(config, max_num_seqs=1, enable_prefix_caching=False, num_speculative_tokens=0)
        _check_sizes(config, language_model)
        num_blocks = config.kv_cache_bytes // language_model.block_bytes
        self.max_model_len = min(config.max_position_embeddings, num_blocks * language_model.block_size)
        self._num_blocks, self._block_size = num_blocks, language_model.block_size
        self._hidden_size = language_model.hidden_size
        self._vocab_size = language_model.vocab_size
        self.max_num_seqs = config.max_num_seqs
        self._max_num_batched_tokens = config.max_num_batched_tokens
        self._block_manager = BlockManager(num_blocks, language_model.block_size)
        caching: PrefixCaching = "off"
        if config.enable_prefix_caching:  # docs/decisions/0009-prefix-cache.md
            caching = "prefilled" if language_model.quantises_kv_cache else "all"
        self._runner = language_model.new_runner(
            num_blocks, config.max_num_seqs, config.max_num_batched_tokens
        )
        scheduler = Scheduler(
            self._block_manager,
            config.max_num_seqs,
            config.max_num_batched_tokens,
            caching,
            config.num_speculative_tokens,
        )
        self._step_loop = StepLoop(self._runner, scheduler, self._vocab_size, config.eos_token_id)
        self._stats = self._step_loop.stats
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._condition = threading.Condition()
        self._state: _State = "new"  # with _inbox and _unfinished: under the condition
        self._inbox: list[EngineRequest | _Abort] = []
        # Submitted, terminal event not yet handed over. By queue, not by id at the time of delivery: a late
        # event would reach the next request of that id.
        self._unfinished: dict[str, _Unfinished] = {}
        self._open: set[str] = set()  # streams being read; touched by the event loop only
        self._event_loop: asyncio.AbstractEventLoop | None = None

    @property
    def is_healthy(self) -> bool:
        """Whether requests are accepted: started, not stopped, no step has failed."""
        return self._state == "running"

    @property
    def num_unfinished(self) -> int:
        """Requests submitted and not ended, as of now."""
        with self._condition:
            return len(self._unfinished)

    def num_before(self, priority: int) -> int:
        """Of them, those that a request of this priority comes after."""
        with self._condition:
            return sum(other.priority <= priority for other in self._unfinished.values())

    def num_cached_tokens(self, request: EngineRequest) -> int:
        """How much of the prompt the prefix cache holds right now: a hint, a step later it may be gone.

        For any thread, without a lock that would wait for a step: BlockManager.find only asks a dict for one
        digest after another, each at once, and the blocks it finds are counted here and not used.
        """
        block_size = self._block_manager.block_size
        return len(self._block_manager.find(prompt_digests(request, block_size))) * block_size

    def score(self, request: EngineRequest, answer: Sequence[int]) -> tuple[TokenScore, ...]:
        """How the model would have chosen at each token of `answer` to `request`; before start() only.

        Writes into blocks that nobody owns and nobody will find. Raises what stream() does where the two do
        not fit.
        """
        assert self._state == "new", "from then on, the runner belongs to the thread"
        self._check(request, len(answer))
        return score_answer(
            self._runner, self._block_manager.block_size, self._max_num_batched_tokens, request, answer
        )

    def start(self) -> None:
        """Start the thread; once."""
        with self._condition:
            assert self._state == "new", "an engine starts once"
            self._state = "running"
        self._thread.start()

    def stop(self) -> None:
        """End every unfinished request with "abort" and join the thread; waits for the step under way."""
        with self._condition:
            if self._state in ("new", "running"):
                self._state = "stopping" if self._state == "running" else "stopped"
            self._condition.notify()
        if self._thread.ident is not None:
            self._thread.join()

    def stats(self) -> EngineStats:
        """As of the last step, requests not yet seen by the thread counted as waiting."""
        with self._condition:
            num_new = sum(isinstance(command, EngineRequest) for command in self._inbox)
        return replace(self._stats, waiting=self._stats.waiting + num_new)

    def max_new_tokens(self, num_prompt_tokens: int, num_seqs: int = 1) -> int:
        """How long the answers to a prompt can be, each of `num_seqs` that share its full blocks.

        0 or less: there is no room for any.
        """
        num_shared = num_prompt_tokens // self._block_size
        num_blocks = num_shared + (self._num_blocks - num_shared) // num_seqs
        return min(self.max_model_len, num_blocks * self._block_size) - num_prompt_tokens

    def abort(self, request_id: str, index: int | None = None) -> None:
        """End a request with "abort" before the next step; nothing if it has ended.

        With `index`, one choice of several: the others go on, and it has no more events.
        """
        with self._condition:
            if request_id in self._unfinished:
                self._inbox.append(_Abort(request_id, index))
                self._condition.notify()

    async def stream(self, request: EngineRequest) -> AsyncGenerator[TokenEvent, None]:
        """Submit `request` and yield its events, the last one with `ends_request`.

        Closing the iterator early aborts the request (wrap it in contextlib.aclosing). The first step of the
        iteration raises NotReadyError, InvalidValueError or ContextLengthError if the request is refused.
        """
        self._check(request, request.sampling.max_tokens)
        events: asyncio.Queue[TokenEvent] = asyncio.Queue()
        self._submit(request, events)
        try:
            while True:
                event = await events.get()
                yield event
                if event.ends_request:
                    return
        finally:
            self._open.remove(request.request_id)
            self.abort(request.request_id)

    def _check(self, request: EngineRequest, max_tokens: int) -> None:
        num_prompt, num_seqs = len(request.token_ids), request.sampling.num_seqs
        if num_prompt == 0:
            raise InvalidValueError("the prompt is empty", "messages")
        if max_tokens < 1:
            raise InvalidValueError("max_tokens must be at least 1", "max_tokens")
        if num_seqs > self.max_num_seqs:
            raise InvalidValueError(f"at most {self.max_num_seqs} sequences run at once", "n")
        limit = num_prompt + self.max_new_tokens(num_prompt, num_seqs)
        if num_prompt + max_tokens > limit:
            raise ContextLengthError(
                f"the prompt has {num_prompt} tokens and {max_tokens} are asked for, but prompt and "
                f"{'answer' if num_seqs == 1 else f'each of {num_seqs} answers'} together must not exceed "
                f"{limit} tokens",
                "messages",
            )
        if request.token_ids.min() < 0 or request.token_ids.max() >= self._vocab_size:
            raise InvalidValueError("the prompt has a token id outside the vocabulary", "messages")
        end = 0
        for span in request.image_spans:
            assert len(span.digest) == 32, "without its digest, an image would be taken for another"
            fits = end <= span.start and span.embeddings.shape[1:] == (self._hidden_size,)
            end = span.start + len(span.embeddings)
            if not fits or end > num_prompt:
                raise InvalidValueError("the images do not fit their slots in the prompt", "messages")

    def _submit(self, request: EngineRequest, events: asyncio.Queue[TokenEvent]) -> None:
        event_loop = asyncio.get_running_loop()
        with self._condition:
            if self._state != "running":
                raise NotReadyError("the engine is not running")
            if request.request_id in self._unfinished or request.request_id in self._open:
                raise InvalidValueError("the request id is in use", "request_id")
            assert not self._open or self._event_loop is event_loop, "an engine serves one event loop"
            self._event_loop = event_loop
            self._open.add(request.request_id)
            self._unfinished[request.request_id] = _Unfinished(events, request.priority)
            self._inbox.append(request)
            self._condition.notify()

    def _run(self) -> None:
        """The thread: sleep while there is nothing to do, else take the inbox and make one step."""
        try:
            while (commands := self._next_commands()) is not None:
                events = self._apply(commands)
                events += self._step_loop.step()
                self._stats = self._step_loop.stats
                self._publish(events)
        except Exception as error:  # whatever it was, no request may be left waiting
            logger.error("engine step failed: %s", type(error).__name__)
            self._end_all("failed", "error")
        else:
            self._end_all("stopped", "abort")
            _log_guesses(self._stats)

    def _next_commands(self) -> list[EngineRequest | _Abort] | None:
        """What came in since the last step; None to stop. Blocks while there is nothing to do."""
        with self._condition:
            while self._state == "running" and not self._inbox and not self._step_loop.has_work:
                self._condition.wait()
            if self._state != "running":
                return None
            commands, self._inbox = self._inbox, []
            return commands

    def _apply(self, commands: Iterable[EngineRequest | _Abort]) -> list[TokenEvent]:
        events: list[TokenEvent] = []
        for command in commands:
            if isinstance(command, _Abort):
                events += self._abort(command)
            else:
                self._step_loop.add(command)
        return events

    def _abort(self, command: _Abort) -> list[TokenEvent]:
        if command.index is None:
            return self._step_loop.abort(command.request_id)
        return self._step_loop.abort_choice(command.request_id, command.index)

    def _end_all(self, state: _State, finish_reason: FinishReason) -> None:
        with self._condition:
            self._state = state
            self._inbox.clear()
            request_ids = sorted(self._unfinished)
        self._stats = replace(self._stats, running=0, waiting=0)
        self._publish([TokenEvent(request_id, (), finish_reason) for request_id in request_ids])

    def _publish(self, events: list[TokenEvent]) -> None:
        """Hand a step's events to the event loop in one call."""
        if not events:
            return
        with self._condition:
            deliveries = [(self._unfinished[event.request_id].events, event) for event in events]
            for event in events:
                if event.ends_request:
                    del self._unfinished[event.request_id]
        assert self._event_loop is not None, "events come from requests, and requests from a loop"
        try:
            self._event_loop.call_soon_threadsafe(_deliver, deliveries)
        except RuntimeError:  # the loop is closed: nobody is left to listen
            logger.warning("engine events dropped: the event loop is closed")


def _deliver(deliveries: list[tuple[asyncio.Queue[TokenEvent], TokenEvent]]) -> None:
    for stream, event in deliveries:
        stream.put_nowait(event)


def _log_guesses(stats: EngineStats) -> None:
    if stats.guessed_tokens:
        logger.info(
            "speculation: %d of %d guessed tokens accepted (%.0f %%)",
            stats.accepted_tokens,
            stats.guessed_tokens,
            100 * stats.accepted_tokens / stats.guessed_tokens,
        )


def _check_sizes(config: EngineConfig, model: EngineModel) -> None:
    if config.kv_cache_bytes < model.block_bytes:
        raise StartupError(
            f"a KV cache of {config.kv_cache_bytes} bytes holds not one block of {model.block_bytes} bytes: "
            "set a larger KV cache size"
        )
    if config.max_num_seqs < 1:
        raise StartupError("max_num_seqs must be at least 1")
    least = min_batched_tokens(config.max_num_seqs, model.block_size)
    if config.max_num_batched_tokens < least:
        raise StartupError(
            f"max_num_batched_tokens ({config.max_num_batched_tokens}) must be at least {least} for "
            f"max_num_seqs {config.max_num_seqs} and KV blocks of {model.block_size} tokens"
        )
