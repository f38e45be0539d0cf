"""Owns the vision threads: keeps decoding and encoding off the event loop; knows no prompt and no engine."""

import asyncio
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar, TypeVarTuple

import numpy as np
from numpy.typing import NDArray

from service.errors import EngineError, NotReadyError
from service.vision.data_url import read_data_url
from service.vision.decode import ImageHeader, ImageLimits, decode_image, read_header
from service.vision.embedding_cache import EmbeddingCache, EmbeddingCacheStats
from service.vision.encoder import VisionEncoder
from service.vision.preprocess import cut_slices, slice_digest
from service.vision.slicing import SlicePlan

_log = logging.getLogger(__name__)

_NICENESS = 16  # of the encoder thread: 3 % of a core's time beside a thread that wants all of it

_Args = TypeVarTuple("_Args")
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True, eq=False)
class PendingImage:
    """An admitted image, not decoded yet."""

    data: bytes
    header: ImageHeader
    plan: SlicePlan


@dataclass(frozen=True, slots=True, eq=False)
class EncodedSlice:
    """What the engine needs of the overview or of one slice."""

    embeddings: NDArray[np.float32]  # [query_num, hidden_size], read-only: requests share it
    digest: bytes  # 32 bytes: everything the embeddings depend on


@dataclass(frozen=True, slots=True, eq=False)
class DecodedSlice:
    """The overview or one slice, ready for the encoder."""

    pixels: NDArray[np.uint8]  # [height, width, 3] RGB
    digest: bytes


class VisionWorker:
    """One encoder thread, first come first served by batch, behind a bounded pool of decoding threads.

    A whole decoded image lives only inside a decoding thread: `num_decoders` bounds how many there are.
    Encoded slices go through `cache`, which from now on is this worker's; none given: nothing is kept.
    """

    def __init__(
        self, encoder: VisionEncoder, num_decoders: int = 1, cache: EmbeddingCache | None = None
    ) -> None:
        self._encoder = encoder
        self._cache = EmbeddingCache(max_bytes=0) if cache is None else cache
        self._cache_lock = threading.Lock()  # the event loop looks up, the encoder thread does and keeps
        self._decoders = ThreadPoolExecutor(num_decoders, thread_name_prefix="vision-decode")
        self._encoding = ThreadPoolExecutor(1, thread_name_prefix="vision", initializer=_give_way)
        self._closed = False

    async def read_images(
        self, sources: Sequence[tuple[str | bytes, str]], limits: ImageLimits
    ) -> list[tuple[bytes, ImageHeader]]:
        """Bytes and header of each (data URL or file, param), off the event loop: megabytes of base64, and a
        hostile header, take long. Raises what read_data_url and read_header do."""
        return [
            await self._run(self._decoders, _read_image, source, limits, param) for source, param in sources
        ]

    async def decode(self, images: Sequence[PendingImage]) -> list[tuple[DecodedSlice, ...]]:
        """Pixels of each image: the overview, then its slices row by row. Says whether all can be read.

        Raises ImageDecodeError naming the first that cannot; NotReadyError after close(). Cancelling drops
        what has not started.
        """
        return [await self._run(self._decoders, _decode_and_cut, image) for image in images]

    async def encode_slices(
        self, images: Sequence[tuple[DecodedSlice, ...]]
    ) -> list[tuple[EncodedSlice, ...]]:
        """Embeddings of what decode() gave, in its order; what is cached costs nothing and waits for nobody.

        Raises EngineError when the device fails, NotReadyError once closed, if anything is to be encoded.
        """
        embeddings = iter(await self._embed([item for image in images for item in image]))
        return [tuple(EncodedSlice(next(embeddings), item.digest) for item in image) for image in images]

    def cache_stats(self) -> EmbeddingCacheStats:
        """The cache's counters as of now."""
        with self._cache_lock:
            return self._cache.stats

    def close(self) -> None:
        """Drop what waits, which ends in NotReadyError; wait for the batch that runs, perhaps seconds."""
        self._closed = True
        self._decoders.shutdown(wait=True, cancel_futures=True)
        self._encoding.shutdown(wait=True, cancel_futures=True)

    async def _embed(self, slices: Sequence[DecodedSlice]) -> list[NDArray[np.float32]]:
        unique = {item.digest: item for item in slices}
        embeddings = self._find(unique)
        missing = [item for digest, item in unique.items() if digest not in embeddings]
        for batch in self._encoder.plan_batches([item.pixels for item in missing]):
            embeddings |= await self._run(self._encoding, self._encode_batch, [missing[i] for i in batch])
        return [embeddings[item.digest] for item in slices]

    def _find(self, digests: Iterable[bytes]) -> dict[bytes, NDArray[np.float32]]:
        with self._cache_lock:
            found = {digest: self._cache.get(digest) for digest in digests}
        return {digest: embeddings for digest, embeddings in found.items() if embeddings is not None}

    def _encode_batch(self, slices: Sequence[DecodedSlice]) -> dict[bytes, NDArray[np.float32]]:
        """Embeddings by digest; in the encoder thread.

        Looks again: while this batch waited for its turn, another request's may have held the same slices.
        That, and not a future they would share, is how two requests encode a slice once: the second neither
        fails nor ends with the first.
        """
        found = self._find(item.digest for item in slices)
        missing = [item for item in slices if item.digest not in found]
        if not missing:
            return found
        encoded = dict(zip((item.digest for item in missing), self._infer(missing), strict=True))
        with self._cache_lock:
            for digest, embeddings in encoded.items():
                embeddings.setflags(write=False)
                self._cache.put(digest, embeddings)
        return found | encoded

    def _infer(self, slices: Sequence[DecodedSlice]) -> list[NDArray[np.float32]]:
        try:
            return self._encoder.encode_batch([item.pixels for item in slices])
        except Exception as error:
            _log.error("the image encoder failed: %s", type(error).__name__)
            raise EngineError("the image encoder failed") from None

    async def _run(
        self, threads: ThreadPoolExecutor, work: Callable[[*_Args], _Result], *args: *_Args
    ) -> _Result:
        if self._closed:
            raise NotReadyError("the service is shutting down")
        item = asyncio.get_running_loop().run_in_executor(threads, work, *args)
        try:
            await asyncio.wait([item])
        finally:
            item.cancel()  # does nothing to what is done; a cancelled request's work leaves the queue
        if item.cancelled():  # by close()
            raise NotReadyError("the service is shutting down")
        return item.result()


def _give_way() -> None:
    """Let the calling thread have less of a core than those that make tokens, while they want it.

    docs/decisions/0026-images-beside-streams.md
    """
    if sys.platform == "linux":  # elsewhere a priority is the whole process's
        os.nice(_NICENESS)


def _read_image(source: str | bytes, limits: ImageLimits, param: str) -> tuple[bytes, ImageHeader]:
    data = source if isinstance(source, bytes) else read_data_url(source, limits.max_bytes, param)
    return data, read_header(data, limits, param)


def _decode_and_cut(image: PendingImage) -> tuple[DecodedSlice, ...]:
    slices = cut_slices(decode_image(image.data, image.header), image.plan)
    return tuple(DecodedSlice(pixels, slice_digest(pixels)) for pixels in slices)
