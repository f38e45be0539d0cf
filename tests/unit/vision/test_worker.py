"""Images in, embeddings with digests out, off the event loop; failures name the image; cancels are heard."""

import asyncio
import base64
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from service.errors import EngineError, ImageDecodeError, NotReadyError, TooLargeError
from service.vision.decode import ImageLimits, decode_image, read_header
from service.vision.encoder import VisionEncoder
from service.vision.preprocess import cut_slices, slice_digest
from service.vision.slicing import plan_slices
from service.vision.worker import PendingImage, VisionWorker
from tests.unit.vision.encoder_model import CONFIG, encode_images, expected_embeddings, open_encoder
from tests.unit.vision.images import random_rgb, save


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> VisionEncoder:
    return open_encoder(tmp_path_factory.mktemp("encoder"), max_batch_patches=8)


def pending(data: bytes, param: str = "image") -> PendingImage:
    header = read_header(data, ImageLimits(), param)
    return PendingImage(data, header, plan_slices(header.width, header.height, CONFIG))


class GatedEncoder:
    """The real one, whose batches wait for a permit each."""

    def __init__(self, encoder: VisionEncoder) -> None:
        self.plan_batches = encoder.plan_batches
        self._encode_batch = encoder.encode_batch
        self.permits = threading.Semaphore(0)
        self.started = threading.Semaphore(0)
        self.num_batches = 0

    def encode_batch(self, slices: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
        self.num_batches += 1
        self.started.release()
        self.permits.acquire()
        return self._encode_batch(slices)


async def test_images_come_back_in_order(encoder: VisionEncoder) -> None:
    images = [pending(save(random_rgb(*size), "PNG")) for size in ((28, 28), (60, 90), (1, 1), (90, 60))]
    worker = VisionWorker(encoder)
    encoded = await encode_images(worker, images)
    worker.close()
    assert [len(slices) for slices in encoded] == [image.plan.num_images for image in images]
    assert sum(map(len, encoded)) > len(images)
    for image, slices in zip(images, encoded, strict=True):
        pixels = cut_slices(decode_image(image.data, image.header), image.plan)
        for item, one in zip(slices, pixels, strict=True):
            assert item.digest == slice_digest(one)
            assert np.allclose(item.embeddings, expected_embeddings(one), atol=1e-5)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has priorities of threads")
async def test_encoding_gives_way_to_threads_that_make_tokens(encoder: VisionEncoder) -> None:
    def priority() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    seen: list[int] = []

    class Watched(GatedEncoder):
        def encode_batch(self, slices: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
            seen.append(priority())
            return self._encode_batch(slices)

    own = priority()
    worker = VisionWorker(Watched(encoder))  # type: ignore[arg-type]
    await encode_images(worker, [pending(save(random_rgb(28, 28), "PNG"))])
    worker.close()
    assert seen == [min(own + 16, 19)]
    assert priority() == own


async def test_no_image_is_no_work(encoder: VisionEncoder) -> None:
    worker = VisionWorker(encoder)
    assert await encode_images(worker, []) == []
    worker.close()


async def test_a_broken_image_is_named_and_nothing_is_encoded(encoder: VisionEncoder) -> None:
    gated = GatedEncoder(encoder)
    worker = VisionWorker(gated)  # type: ignore[arg-type]
    whole = save(random_rgb(20, 20), "PNG")
    seen = pending(whole, "messages[1].content[0].image_url")
    broken = PendingImage(whole[:-40], seen.header, seen.plan)
    with pytest.raises(ImageDecodeError) as raised:
        await encode_images(worker, [pending(whole), broken])
    worker.close()
    assert raised.value.param == "messages[1].content[0].image_url"
    assert gated.num_batches == 0


async def test_urls_files_and_headers_are_read_off_the_loop(encoder: VisionEncoder) -> None:
    worker = VisionWorker(encoder)
    files = [save(random_rgb(3, 4), "PNG"), save(random_rgb(5, 6), "JPEG")]
    urls = [f"data:image/png;base64,{base64.b64encode(file).decode()}" for file in files]
    asked = list(zip(urls, ("a", "b"), strict=True))
    images = await worker.read_images(asked, ImageLimits())
    assert [data for data, _ in images] == files
    assert await worker.read_images(list(zip(files, ("a", "b"), strict=True)), ImageLimits()) == images
    assert [(header.width, header.height, header.param) for _, header in images] == [(4, 3, "a"), (6, 5, "b")]
    with pytest.raises(TooLargeError) as raised:
        await worker.read_images(asked, ImageLimits(max_side=5))
    assert raised.value.param == "b"
    worker.close()


async def test_a_cancelled_request_is_dropped_between_batches(encoder: VisionEncoder) -> None:
    gated = GatedEncoder(encoder)
    worker = VisionWorker(gated)  # type: ignore[arg-type]
    many = pending(save(random_rgb(56, 56), "PNG"))
    assert len(gated.plan_batches([np.zeros((28, 28, 3), np.uint8)] * many.plan.num_images)) > 1
    running = asyncio.create_task(encode_images(worker, [many]))
    waiting = asyncio.create_task(encode_images(worker, [many]))
    await asyncio.to_thread(gated.started.acquire)
    await asyncio.sleep(0.05)  # lets the second one reach the queue; either way it must not be encoded
    running.cancel()
    waiting.cancel()
    gated.permits.release(100)
    await asyncio.wait([running, waiting])
    assert running.cancelled()
    assert waiting.cancelled()
    after = await encode_images(worker, [pending(save(random_rgb(28, 28), "PNG"))])
    worker.close()
    assert len(after) == 1
    assert gated.num_batches == 2  # the one that ran, and the one after


async def test_a_failing_device_tells_nothing(
    tmp_path: Path, encoder: VisionEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(GatedEncoder):
        def encode_batch(self, slices: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
            raise RuntimeError("0xdeadbeef /secret/path")

    worker = VisionWorker(Broken(encoder))  # type: ignore[arg-type]
    with pytest.raises(EngineError) as raised:
        await encode_images(worker, [pending(save(random_rgb(28, 28), "PNG"))])
    worker.close()
    assert raised.value.message == "the image encoder failed"
    assert raised.value.__cause__ is None
    assert "RuntimeError" in caplog.text
    assert "secret" not in caplog.text


async def test_close_ends_what_waits_with_an_error(encoder: VisionEncoder) -> None:
    gated = GatedEncoder(encoder)
    worker = VisionWorker(gated)  # type: ignore[arg-type]
    image = pending(save(random_rgb(28, 28), "PNG"))
    running, waiting = (asyncio.create_task(encode_images(worker, [image])) for _ in range(2))
    await asyncio.to_thread(gated.started.acquire)
    await asyncio.sleep(0.05)  # lets the second one reach the queue; either way it must end as asserted
    closing = asyncio.create_task(asyncio.to_thread(worker.close))
    with pytest.raises(NotReadyError):
        await waiting
    gated.permits.release(100)
    assert len(await running) == 1
    await closing


async def test_after_close_nothing_is_taken(encoder: VisionEncoder) -> None:
    worker = VisionWorker(encoder)
    worker.close()
    worker.close()
    with pytest.raises(NotReadyError):
        await encode_images(worker, [pending(save(random_rgb(28, 28), "PNG"))])
