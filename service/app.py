"""The composition root: builds every room from settings and manifest, and holds them through one run."""

import asyncio
import hashlib
import logging
from pathlib import Path

import openvino as ov

from service.api.application import create_api
from service.api.deps import ApiConfig
from service.api.error_handlers import log_unexpected
from service.artifacts import Manifest
from service.engine.router import EngineRouter
from service.errors import EngineError, ServiceError, StartupError
from service.generation.availability import Availability
from service.generation.generator import Generator, GeneratorConfig
from service.generation.golden_check import (
    EXACT_TOLERANCE,
    TOLERANCE,
    GoldenMismatch,
    find_mismatch,
    golden_engine_request,
)
from service.generation.warm_up import warm_up
from service.loaded_models import Models, image_device, load_models
from service.mapped_pages import pages_returned
from service.placement import (
    open_cache_dir,
)
from service.protocol.device_list import DeviceCard
from service.remote.dialler import CheckedDialler
from service.remote.image_fetcher import ImageFetcher
from service.remote.image_hosts import ImageHosts
from service.server import Server, listen
from service.settings import Settings
from service.vision.decode import ImageLimits

logger = logging.getLogger(__name__)

_WATCH_INTERVAL_S = 1.0


def run(settings: Settings, manifest: Manifest) -> None:
    """Listen at once, load in the background, serve until a signal.

    `manifest` has been checked against the files. Raises StartupError if the cache directory cannot be used,
    an image host is none, the port is taken or loading fails.
    """
    cache_dir = open_cache_dir(settings.cache_dir, _files_digest(settings, manifest))
    asyncio.run(_Service(settings, manifest, cache_dir, _image_fetcher(settings)).run())


class _Service:
    def __init__(
        self,
        settings: Settings,
        manifest: Manifest,
        cache_dir: Path | None = None,
        fetcher: ImageFetcher | None = None,
    ) -> None:
        self._settings = settings
        self._manifest = manifest
        self._cache_dir = cache_dir
        self._fetcher = fetcher
        self._availability = Availability()
        self._models: Models | None = None
        self._server = Server(
            create_api(_api_config(settings, manifest), self._availability),
            settings.drain_timeout,
            on_drain=self._availability.begin_drain,
            on_drain_timeout=self._availability.end_running,
        )

    async def run(self) -> None:
        socket = listen(self._settings.host, self._settings.port)
        logger.info("listening on %s port %d; loading", self._settings.host, self._settings.port)
        loading = asyncio.create_task(self._load())
        loading.add_done_callback(self._on_loaded)
        watching = asyncio.create_task(self._watch())
        try:
            await self._server.serve(sockets=[socket])
        finally:
            watching.cancel()
            loading.cancel()
            (outcome,) = await asyncio.gather(loading, return_exceptions=True)
            if self._models is not None:
                await asyncio.to_thread(self._models.stop)
        if isinstance(outcome, Exception):
            raise _as_startup_error(outcome)
        if self._availability.state == "failed":
            raise EngineError("the engine has failed, see the log above; start the service anew")

    async def _load(self) -> None:
        # OpenVINO copies a weight when it is first used: the first requests belong to loading.
        with pages_returned(self._settings.model_dir):
            await self._load_and_warm_up()

    async def _load_and_warm_up(self) -> None:
        settings, manifest = self._settings, self._manifest
        self._models = models = await asyncio.to_thread(load_models, settings, manifest, self._cache_dir)
        await _check_golden_answer(models, settings, manifest)
        models.router.start()
        config = _generator_config(settings, manifest, models.router)
        for engine in models.router.engines:
            await warm_up(Generator(engine, models.vision, models.tokenizer, config), manifest.golden)
        generator = Generator(models.router, models.vision, models.tokenizer, config, self._fetcher)
        self._availability.open(generator, models.devices)
        logger.info("ready: %s, %s on %s", manifest.model_id, settings.weights, ", ".join(settings.device))

    async def _watch(self) -> None:
        """Stop serving once the engine has failed: started anew, the process has a whole one."""
        while self._availability.state != "failed":
            await asyncio.sleep(_WATCH_INTERVAL_S)
        self._server.should_exit = True

    def _on_loaded(self, loading: asyncio.Task[None]) -> None:
        if not loading.cancelled() and loading.exception() is not None:
            self._availability.fail()
            self._server.should_exit = True


def _generator_config(settings: Settings, manifest: Manifest, router: EngineRouter) -> GeneratorConfig:
    return GeneratorConfig(
        image=manifest.model.image,
        token_ids=manifest.model.token_ids,
        vocab_size=manifest.model.vocab_size,
        max_in_flight=sum(engine.max_num_seqs for engine in router.engines) + settings.max_queue,
        max_images=settings.max_images,
        image_limits=ImageLimits(
            max_bytes=settings.max_image_bytes,
            max_pixels=settings.max_image_pixels,
            max_side=settings.max_image_side,
            max_aspect_ratio=settings.max_image_aspect_ratio,
        ),
        max_total_pixels=settings.max_total_image_pixels,
        max_fetched_bytes=settings.max_body_bytes,  # as if they stood in the body
    )


def _image_fetcher(settings: Settings) -> ImageFetcher | None:
    if not settings.image_hosts:
        return None
    dialler = CheckedDialler(may_be_private=settings.image_hosts_may_be_private)
    fetcher = ImageFetcher(ImageHosts(settings.image_hosts), dialler)
    private = ", which may be private" if settings.image_hosts_may_be_private else ""
    logger.info("images are fetched from %s%s", ", ".join(settings.image_hosts), private)
    return fetcher


def _api_config(settings: Settings, manifest: Manifest) -> ApiConfig:
    return ApiConfig(
        model_name=settings.model_name or manifest.model_id,
        created=manifest.created,
        system_fingerprint=_fingerprint(settings, manifest),
        api_keys=[key.get_secret_value() for key in settings.api_keys],
        cors_origins=settings.cors_origins,
        route_prefix=settings.route_prefix or "",
        root_path=settings.root_path or "",
        max_body_bytes=settings.max_body_bytes,
        ping_interval_s=settings.ping_interval,
    )


def _fingerprint(settings: Settings, manifest: Manifest) -> str:
    """Changes with whatever may change a seeded answer."""
    setup = (
        ov.__version__,
        settings.device,
        image_device(settings),
        settings.runner,
        settings.kv_cache_precision,
        settings.inference_precision,
        settings.dynamic_quantization_group_size,
        settings.num_speculative_tokens,
    )
    digest = hashlib.sha256(f"{_files_digest(settings, manifest)} {setup}".encode())
    return f"fp_{digest.hexdigest()[:12]}"


def _files_digest(settings: Settings, manifest: Manifest) -> str:
    """One name for the content of all files the variant needs."""
    files = "".join(manifest.files[name].sha256 for name in manifest.variant_files(settings.weights))
    return hashlib.sha256(files.encode()).hexdigest()[:16]


async def _check_golden_answer(models: Models, settings: Settings, manifest: Manifest) -> None:
    """Hold every engine against the artifact's tokens; a device that computes nonsense shows here."""
    expected = manifest.variants[settings.weights].golden_tokens
    exact = settings.inference_precision == settings.kv_cache_precision == "f32"
    exact &= not settings.dynamic_quantization_group_size
    request = await golden_engine_request(manifest.golden, manifest.model, models.vision, models.tokenizer)
    for engine, card in zip(models.router.engines, models.devices, strict=False):
        scores = await asyncio.to_thread(engine.score, request, expected)
        mismatch = find_mismatch(scores, EXACT_TOLERANCE if exact else TOLERANCE)
        if mismatch is None:
            logger.info("%s: the golden answer is the artifact's", card.id)
            continue
        fault = _describe(mismatch, card, len(expected))
        if not settings.allow_golden_mismatch:
            raise StartupError(f"{fault}; MINICPMV_ALLOW_GOLDEN_MISMATCH=true serves nevertheless")
        logger.warning("%s; serving nevertheless, as MINICPMV_ALLOW_GOLDEN_MISMATCH says", fault)


def _describe(mismatch: GoldenMismatch, card: DeviceCard, num_tokens: int) -> str:
    score = mismatch.score
    return (
        f"{card.id} with {card.weights} weights (inference {card.inference_precision}, KV cache "
        f"{card.kv_cache_precision}) does not give the artifact's golden answer: token "
        f"{mismatch.position + 1} of {num_tokens} is {score.best_id} instead of {score.token_id}, by "
        f"{score.gap:.2f} standard deviations of the logits. A file is damaged (export or copy the model "
        "again), or the device computes wrong (try MINICPMV_INFERENCE_PRECISION=f32)"
    )


def _as_startup_error(error: Exception) -> StartupError:
    if isinstance(error, StartupError):
        return error
    log_unexpected(error)
    cause = error.message if isinstance(error, ServiceError) else type(error).__name__
    return StartupError(f"the model could not be loaded and tried: {cause}")
