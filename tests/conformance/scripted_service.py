"""The real HTTP and generation rooms over a scripted engine and encoder, on a free port of the loopback."""

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Self

import numpy as np
import uvicorn
from fastapi import FastAPI
from numpy.typing import NDArray

from service.api.application import create_api
from service.api.deps import ApiConfig
from service.artifacts import ImageConfig, TokenIds
from service.engine.token_events import EngineRequest, FinishReason, TokenEvent, TokenLogprobs
from service.generation.availability import Availability
from service.generation.generation import TokenEngine
from service.generation.generator import Generator, GeneratorConfig
from service.generation.remote_images import ImageFetcher
from service.prompt.tokenizer import Tokenizer
from service.vision.decode import ImageLimits
from service.vision.encoder import VisionEncoder
from service.vision.worker import VisionWorker

MODEL = "openbmb/MiniCPM-V-2"
FIRST_BYTE = 200  # token id of the byte 0
VOCAB_SIZE = FIRST_BYTE + 256
QUERY_NUM = 4
TOKEN_IDS = TokenIds()
IMAGE = ImageConfig(scale_resolution=448, patch_size=14, max_slice_nums=9, query_num=QUERY_NUM)


class ByteTokenizer:
    """A token a byte; specials have their real ids."""

    vocab_size = VOCAB_SIZE

    def encode_text(self, text: str) -> list[int]:
        return [FIRST_BYTE + byte for byte in text.encode()]

    def piece_bytes(self, token_id: int) -> bytes:
        return bytes([token_id - FIRST_BYTE]) if token_id >= FIRST_BYTE else f"<{token_id}>".encode()

    def is_special(self, token_id: int) -> bool:
        return token_id in TOKEN_IDS.model_dump().values()


class ScriptedEngine:
    """Answers `answer`, a byte an event, and eos; remembers what it was asked and how each request ended.

    A choice but the first has its index behind the answer. Each token's log-probability is minus its byte.
    """

    max_num_seqs = 8

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Back to the first script, with nothing remembered."""
        self.answer = "The answer."
        self.max_model_len = 512
        self.is_healthy = True
        self.endless = False  # repeat the answer until somebody stops it
        self.fail_after: int | None = None  # tokens
        self.pause_s = 0.0  # before each token
        self.requests: list[EngineRequest] = []
        self.closed: list[str] = []  # ended before their last event
        self.closed_choices: list[int] = []
        self._aborted: set[tuple[str, int | None]] = set()

    def max_new_tokens(self, num_prompt_tokens: int, num_seqs: int = 1) -> int:
        return (self.max_model_len - num_prompt_tokens) // num_seqs

    def abort(self, request_id: str, index: int | None = None) -> None:
        self._aborted.add((request_id, index))

    async def stream(self, request: EngineRequest) -> AsyncGenerator[TokenEvent, None]:
        self.requests.append(request)
        finished = False
        try:
            async for event in self._events(request):
                finished = event.ends_request
                yield event
        finally:
            if not finished:
                self.closed.append(request.request_id)

    async def _events(self, request: EngineRequest) -> AsyncGenerator[TokenEvent, None]:
        """The choices take turns."""
        running = {index: self._choice(request, index) for index in range(request.sampling.n)}
        while running:
            for index, choice in list(running.items()):
                if (request.request_id, index) in self._aborted:
                    self.closed_choices.append(index)
                    del running[index]
                    continue
                await asyncio.sleep(self.pause_s)
                if (request.request_id, None) in self._aborted:
                    yield TokenEvent(request.request_id, (), "abort")
                    return
                event = next(choice)
                if event.finish_reason is not None:
                    del running[index]
                yield replace(event, others_run=event.finish_reason not in (None, "error") and bool(running))

    def _choice(self, request: EngineRequest, index: int) -> Iterator[TokenEvent]:
        sampling, num_tokens = request.sampling, 0
        text = f"{self.answer}{index}" if index else self.answer
        while True:
            for byte in text.encode():
                if num_tokens == self.fail_after:
                    yield TokenEvent(request.request_id, (), "error")
                    return
                num_tokens += 1
                token = FIRST_BYTE + byte
                if token in sampling.stop_token_ids:
                    yield self._event(request, index, token, "stop")
                    return
                last = num_tokens == sampling.max_tokens
                yield self._event(request, index, token, "length" if last else None)
                if last:
                    return
            if not self.endless:
                yield self._event(request, index, TOKEN_IDS.eos, "stop")
                return

    def _event(
        self, request: EngineRequest, index: int, token: int, finish_reason: FinishReason | None
    ) -> TokenEvent:
        stop_token_id = token if finish_reason == "stop" else None
        logprobs: tuple[TokenLogprobs, ...] = ()
        if (count := request.sampling.logprobs) is not None:
            top = tuple((FIRST_BYTE + byte, -float(byte)) for byte in range(count))
            logprobs = (TokenLogprobs(float(FIRST_BYTE - token), top),)
        return TokenEvent(
            request.request_id, (token,), finish_reason, stop_token_id, index=index, logprobs=logprobs
        )


class ScriptedEncoder(VisionEncoder):
    """Real batching, no device: every slot holds the mean of its slice's pixels."""

    def __init__(self) -> None:
        self._image_config = IMAGE
        self._max_batch_patches = 4096
        self.gate = threading.Event()
        self.gate.set()

    def encode_batch(self, slices: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
        assert self.gate.wait(30)
        return [np.full((QUERY_NUM, 8), pixels.mean(), dtype=np.float32) for pixels in slices]


class ScriptedService:
    """A running server; a context manager. Its parts may be changed between requests."""

    def __init__(
        self,
        config: ApiConfig | None = None,
        max_in_flight: int = 8,
        token_engine: TokenEngine | None = None,
        fetcher: ImageFetcher | None = None,
        tokenizer: Tokenizer | None = None,
    ) -> None:
        """`token_engine` answers in place of the script, in tokens of `tokenizer`."""
        self.engine, self.encoder = ScriptedEngine(), ScriptedEncoder()
        self.worker = VisionWorker(self.encoder)
        self.generator = Generator(
            token_engine or self.engine,
            self.worker,
            tokenizer or ByteTokenizer(),
            generator_config(max_in_flight=max_in_flight),
            fetcher,
        )
        self.availability = Availability()
        self.app: FastAPI = create_api(config or api_config(), self.availability)
        self._server = uvicorn.Server(
            uvicorn.Config(self.app, port=0, log_config=None, lifespan="off", ws="none", access_log=False)
        )
        self._thread = threading.Thread(target=self._server.run, name="server")

    @property
    def port(self) -> int:
        port: int = self._server.servers[0].sockets[0].getsockname()[1]
        return port

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def open(self) -> None:
        self.availability.open(self.generator)

    def __enter__(self) -> Self:
        self._thread.start()
        wait_until(lambda: self._server.started)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.encoder.gate.set()
        self._server.should_exit = True
        self._thread.join(30)
        self.worker.close()


def api_config(**changes: object) -> ApiConfig:
    values: dict[str, object] = {
        "model_name": MODEL,
        "created": 1_700_000_000,
        "system_fingerprint": "fp_test",
    }
    return ApiConfig(**(values | changes))  # type: ignore[arg-type]


def generator_config(max_in_flight: int = 8) -> GeneratorConfig:
    return GeneratorConfig(
        image=IMAGE,
        token_ids=TOKEN_IDS,
        vocab_size=VOCAB_SIZE,
        max_in_flight=max_in_flight,
        max_images=3,
        image_limits=ImageLimits(max_bytes=100_000, max_pixels=1_000_000, max_side=2_000),
        max_total_pixels=1_500_000,
        max_fetched_bytes=150_000,
    )


def wait_until(condition: Callable[[], object], timeout_s: float = 30.0) -> None:
    """Poll; the time is a fuse, not a measurement."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError("this did not happen in time")
        time.sleep(0.005)
