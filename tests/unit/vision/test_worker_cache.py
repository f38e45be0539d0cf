"""What is encoded, when, and how often, with a cache; and that no answer depends on it."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import openvino as ov
import pytest
from numpy.typing import NDArray

from service.artifacts import ImageConfig
from service.errors import EngineError
from service.settings import EMBEDDED_MODEL_DIR
from service.vision.decode import ImageLimits, read_header
from service.vision.embedding_cache import ENTRY_OVERHEAD_BYTES, EmbeddingCache, EmbeddingCacheStats
from service.vision.encoder import VisionEncoder
from service.vision.preprocess import slice_digest
from service.vision.slicing import Detail, SlicePlan, plan_slices
from service.vision.worker import DecodedSlice, EncodedSlice, PendingImage, VisionWorker
from tests.unit.vision.encoder_model import CONFIG, encode_images, expected_embeddings, open_encoder
from tests.unit.vision.images import random_rgb, save

ENTRY = 2 * 3 * 4 + ENTRY_OVERHEAD_BYTES
PLENTY = 1 << 20


class WatchedEncoder:
    """The real one; says what it encodes, waits for a permit each time, fails when told."""

    def __init__(self, encoder: VisionEncoder) -> None:
        self.plan_batches = encoder.plan_batches
        self._encode_batch = encoder.encode_batch
        self.encoded: list[bytes] = []
        self.permits = threading.Semaphore(10_000)
        self.started = threading.Semaphore(0)
        self.num_failures = 0

    def encode_batch(self, slices: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
        self.encoded += [slice_digest(pixels) for pixels in slices]
        self.started.release()
        self.permits.acquire()
        if self.num_failures:
            self.num_failures -= 1
            raise RuntimeError("the device is gone")
        return self._encode_batch(slices)

    def take_encoded(self) -> list[bytes]:
        taken, self.encoded = self.encoded, []
        return taken

    def stop_at_the_next(self) -> None:
        self.permits = threading.Semaphore(0)

    async def wait_for_start(self) -> None:
        await asyncio.to_thread(self.started.acquire)


@pytest.fixture(scope="module")
def real_encoder(tmp_path_factory: pytest.TempPathFactory) -> VisionEncoder:
    return open_encoder(tmp_path_factory.mktemp("encoder"), max_batch_patches=8)  # two slices of 28 x 28


@pytest.fixture
def encoder(real_encoder: VisionEncoder) -> WatchedEncoder:
    return WatchedEncoder(real_encoder)


@pytest.fixture
def open_worker(encoder: WatchedEncoder) -> Iterator[Callable[[int], VisionWorker]]:
    workers = []

    def open_one(max_bytes: int) -> VisionWorker:
        workers.append(VisionWorker(encoder, cache=EmbeddingCache(max_bytes)))  # type: ignore[arg-type]
        return workers[-1]

    yield open_one
    encoder.permits.release(10_000)
    for worker in workers:
        worker.close()


@pytest.fixture
def worker(open_worker: Callable[[int], VisionWorker]) -> VisionWorker:
    return open_worker(PLENTY)


def image_of(
    pixels: NDArray[np.uint8], plan: SlicePlan | None = None, detail: Detail = "high"
) -> PendingImage:
    data = save(pixels, "PNG")
    header = read_header(data, ImageLimits(), "image")
    return PendingImage(data, header, plan or plan_slices(header.width, header.height, CONFIG, detail))


def four_slices(seed: int = 0) -> NDArray[np.uint8]:
    """Pixels whose slices are their quarters as they are."""
    pixels = random_rgb(56, 56, seed)
    assert plan_slices(56, 56, CONFIG) == SlicePlan((28, 28), (56, 56), (2, 2))
    return pixels


def one_slice(seed: int) -> DecodedSlice:
    pixels = random_rgb(28, 28, seed)
    return DecodedSlice(pixels, slice_digest(pixels))


def digests(image: tuple[EncodedSlice, ...]) -> list[bytes]:
    return [item.digest for item in image]


async def test_the_same_image_again_is_not_encoded(encoder: WatchedEncoder, worker: VisionWorker) -> None:
    (first,) = await encode_images(worker, [image_of(four_slices())])
    assert sorted(encoder.take_encoded()) == sorted(digests(first))
    (second,) = await encode_images(worker, [image_of(four_slices())])
    assert encoder.take_encoded() == []
    assert all(a.embeddings is b.embeddings for a, b in zip(first, second, strict=True))
    assert worker.cache_stats().hits == 5
    assert worker.cache_stats().queries == 10


async def test_one_pixel_changed_encodes_the_overview_and_its_slice(
    encoder: WatchedEncoder, worker: VisionWorker
) -> None:
    pixels = four_slices()
    await encode_images(worker, [image_of(pixels)])
    encoder.take_encoded()
    pixels[10, 40] = 255 - pixels[10, 40]  # upper right
    (changed,) = await encode_images(worker, [image_of(pixels)])
    assert sorted(encoder.encoded) == sorted(digests(changed)[i] for i in (0, 2))


async def test_another_slicing_of_the_same_image(encoder: WatchedEncoder, worker: VisionWorker) -> None:
    pixels = four_slices()
    (four,) = await encode_images(worker, [image_of(pixels)])
    encoder.take_encoded()
    (two,) = await encode_images(worker, [image_of(pixels, SlicePlan((28, 28), (56, 56), (1, 2)))])
    assert encoder.take_encoded() == digests(two)[1:], "the overview is the same, halves are no quarters"
    (low,) = await encode_images(worker, [image_of(pixels, detail="low")])
    assert encoder.take_encoded() == []
    assert digests(low) == digests(four)[:1]


async def test_equal_bytes_of_another_size_are_another_slice(
    encoder: WatchedEncoder, worker: VisionWorker
) -> None:
    blank = [
        DecodedSlice(p, slice_digest(p)) for p in (np.zeros((14, 56, 3), "u1"), np.zeros((56, 14, 3), "u1"))
    ]
    await worker.encode_slices([tuple(blank)])
    assert len(encoder.encoded) == 2


async def test_the_same_slice_in_two_images(encoder: WatchedEncoder, worker: VisionWorker) -> None:
    pixels, other = four_slices(1), four_slices(2)
    other[28:, 28:] = pixels[28:, 28:]
    (first,) = await encode_images(worker, [image_of(pixels)])
    encoder.take_encoded()
    (second,) = await encode_images(worker, [image_of(other)])
    assert sorted(encoder.encoded) == sorted(digests(second)[:4])
    assert second[4].embeddings is first[4].embeddings


@pytest.mark.parametrize("budget", [PLENTY, 0])
async def test_a_slice_that_comes_twice_in_a_request_is_encoded_once(
    encoder: WatchedEncoder, open_worker: Callable[[int], VisionWorker], budget: int
) -> None:
    same, other = one_slice(1), one_slice(2)
    images = await open_worker(budget).encode_slices([(same, other, same), (same,)])
    assert sorted(encoder.encoded) == sorted([same.digest, other.digest])
    assert [digests(image) for image in images] == [[same.digest, other.digest, same.digest], [same.digest]]
    for image, slices in zip(images, [(same, other, same), (same,)], strict=True):
        for item, decoded in zip(image, slices, strict=True):
            assert np.allclose(item.embeddings, expected_embeddings(decoded.pixels), atol=1e-5)


async def test_the_oldest_slice_is_encoded_again(
    encoder: WatchedEncoder, open_worker: Callable[[int], VisionWorker]
) -> None:
    worker = open_worker(2 * ENTRY)
    for seed in (1, 2, 1, 3):  # 2 goes, as 1 was used after it
        await worker.encode_slices([(one_slice(seed),)])
    encoder.take_encoded()
    for seed in (1, 3, 2):
        await worker.encode_slices([(one_slice(seed),)])
    assert encoder.encoded == [one_slice(2).digest]
    assert worker.cache_stats().bytes == 2 * ENTRY


async def test_without_a_budget_every_request_encodes(
    encoder: WatchedEncoder, open_worker: Callable[[int], VisionWorker]
) -> None:
    worker = open_worker(0)
    for _ in range(2):
        await worker.encode_slices([(one_slice(1),)])
    assert encoder.encoded == [one_slice(1).digest] * 2
    assert worker.cache_stats() == EmbeddingCacheStats(queries=2, hits=0, bytes=0)


async def test_results_cannot_be_written_to(open_worker: Callable[[int], VisionWorker]) -> None:
    for budget in (PLENTY, 0):
        ((item,),) = await open_worker(budget).encode_slices([(one_slice(1),)])
        assert item.embeddings.flags.owndata
        with pytest.raises(ValueError, match="read-only"):
            item.embeddings[0, 0] = 1


async def test_requests_at_the_same_time_encode_once(encoder: WatchedEncoder, worker: VisionWorker) -> None:
    slices = [one_slice(seed) for seed in range(4)]
    encoder.stop_at_the_next()
    tasks = [
        asyncio.create_task(worker.encode_slices([tuple(order)])) for order in (slices, slices[::-1], slices)
    ]
    await encoder.wait_for_start()
    encoder.permits.release(100)
    results = await asyncio.gather(*tasks)
    assert sorted(encoder.encoded) == sorted(item.digest for item in slices)
    for (image,), order in zip(results, (slices, slices[::-1], slices), strict=True):
        for item, decoded in zip(image, order, strict=True):
            assert np.allclose(item.embeddings, expected_embeddings(decoded.pixels), atol=1e-5)
    assert (worker.cache_stats().queries, worker.cache_stats().hits) == (12, 8)


async def test_the_second_request_outlives_the_first(encoder: WatchedEncoder, worker: VisionWorker) -> None:
    slices = tuple(one_slice(seed) for seed in range(4))
    encoder.stop_at_the_next()
    first = asyncio.create_task(worker.encode_slices([slices]))
    await encoder.wait_for_start()  # two of four run
    second = asyncio.create_task(worker.encode_slices([slices]))
    await asyncio.sleep(0)  # it has looked, found nothing and queued up
    first.cancel()
    await asyncio.wait([first])
    encoder.permits.release(100)
    (image,) = await second
    assert first.cancelled()
    assert digests(image) == [item.digest for item in slices]
    assert sorted(encoder.encoded) == sorted(digests(image)), "what ran for the first is used, not repeated"


async def test_a_cancelled_second_request_leaves_the_first_alone(
    encoder: WatchedEncoder, worker: VisionWorker
) -> None:
    slices = tuple(one_slice(seed) for seed in range(4))
    encoder.stop_at_the_next()
    first = asyncio.create_task(worker.encode_slices([slices]))
    await encoder.wait_for_start()
    second = asyncio.create_task(worker.encode_slices([(*slices, one_slice(9))]))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.wait([second])
    encoder.permits.release(100)
    assert digests((await first)[0]) == [item.digest for item in slices]
    assert one_slice(9).digest not in encoder.encoded, "what had not started was dropped"


async def test_a_failing_device_fails_every_request_and_is_asked_again_later(
    encoder: WatchedEncoder, worker: VisionWorker
) -> None:
    same = (one_slice(1),)
    encoder.num_failures = 2
    encoder.stop_at_the_next()
    tasks = [asyncio.create_task(worker.encode_slices([same])) for _ in range(2)]
    await encoder.wait_for_start()
    encoder.permits.release(100)
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [EngineError, EngineError]
    assert worker.cache_stats() == EmbeddingCacheStats(queries=0, hits=0, bytes=0)
    ((item,),) = await worker.encode_slices([same])
    assert np.allclose(item.embeddings, expected_embeddings(same[0].pixels), atol=1e-5)


async def test_what_is_cached_waits_for_nobody(encoder: WatchedEncoder, worker: VisionWorker) -> None:
    await worker.encode_slices([(one_slice(1),)])
    await encoder.wait_for_start()
    encoder.stop_at_the_next()
    running = asyncio.create_task(worker.encode_slices([(one_slice(2),)]))
    await encoder.wait_for_start()
    cached = asyncio.create_task(worker.encode_slices([(one_slice(1),)]))
    await asyncio.sleep(0)
    assert cached.done()
    assert not running.done()
    encoder.permits.release(100)
    await asyncio.gather(running, cached)


@pytest.fixture(scope="module")
def embedded_encoder() -> VisionEncoder:
    """The embedded model's, compiled as the service does for a CPU."""
    path = EMBEDDED_MODEL_DIR / "image_encoder_int8.xml"
    config = ImageConfig(scale_resolution=28, patch_size=14, max_slice_nums=9, query_num=64)
    return VisionEncoder(ov.Core(), path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}, config)


async def test_embeddings_are_the_same_with_the_cache_on_off_and_full(
    embedded_encoder: VisionEncoder,
) -> None:
    # Single patches: run together, this graph rounds them otherwise than alone, by about 3e-6; two slices
    # differ by far more.
    slices = [random_rgb(14, 14, seed) for seed in range(6)]
    decoded = [DecodedSlice(pixels, slice_digest(pixels)) for pixels in slices]
    rounding = 1e-5
    alone = [embedded_encoder.encode_batch([pixels])[0] for pixels in slices]
    assert np.abs(alone[0] - alone[1]).max() > 100 * rounding
    rng = np.random.default_rng(0)
    entry = alone[0].nbytes + ENTRY_OVERHEAD_BYTES
    for budget in (0, 2 * entry, 100 * entry):
        worker = VisionWorker(embedded_encoder, cache=EmbeddingCache(budget))
        for _ in range(6):
            chosen = rng.integers(0, len(slices), 4).tolist()
            (image,) = await worker.encode_slices([tuple(decoded[i] for i in chosen)])
            for item, index in zip(image, chosen, strict=True):
                np.testing.assert_allclose(item.embeddings, alone[index], rtol=0, atol=rounding)
        worker.close()
