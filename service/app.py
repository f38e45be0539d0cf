"""The composition root: builds every room from settings and manifest, and holds them through one run."""

import asyncio
import hashlib
import logging
import os
from dataclasses import dataclass

import openvino as ov

from service.api.application import create_api
from service.api.deps import ApiConfig
from service.api.error_handlers import log_unexpected
from service.artifacts import Manifest, Variant
from service.engine.engine import Engine, EngineConfig
from service.engine.language_model import DeviceConfig, LanguageModel
from service.errors import EngineError, ServiceError, StartupError
from service.generation.availability import Availability
from service.generation.generator import Generator, GeneratorConfig
from service.generation.warm_up import warm_up
from service.host_limits import memory_limit_bytes, num_cores
from service.prompt.detokenizer import Detokenizer
from service.prompt.tokenizer import SentencePieceTokenizer
from service.server import Server, listen
from service.settings import Settings
from service.vision.decode import ImageLimits
from service.vision.embedding_cache import EmbeddingCache
from service.vision.encoder import VisionEncoder
from service.vision.worker import VisionWorker

logger = logging.getLogger(__name__)

_WATCH_INTERVAL_S = 1.0
_KV_CACHE_SHARE = 4  # the default KV cache takes a quarter of the memory there is


@dataclass(frozen=True, slots=True)
class _Models:
    """What is loaded in the background and must be stopped."""

    engine: Engine
    vision: VisionWorker
    tokenizer: SentencePieceTokenizer

    def stop(self) -> None:
        self.engine.stop()
        self.vision.close()


def run(settings: Settings, manifest: Manifest) -> None:
    """Listen at once, load in the background, serve until a signal.

    `manifest` has been checked against the files. Raises StartupError if the port is taken or loading fails.
    """
    asyncio.run(_Service(settings, manifest).run())


class _Service:
    def __init__(self, settings: Settings, manifest: Manifest) -> None:
        self._settings = settings
        self._manifest = manifest
        self._availability = Availability()
        self._models: _Models | None = None
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
        self._models = await asyncio.to_thread(_load_models, self._settings, self._manifest)
        self._models.engine.start()
        generator = Generator(
            self._models.engine,
            self._models.vision,
            self._models.tokenizer,
            _generator_config(self._settings, self._manifest),
        )
        answer = await warm_up(generator, self._manifest.golden)
        _compare_with_golden(answer, self._settings, self._manifest, self._models.tokenizer)
        self._availability.open(generator)
        logger.info(
            "ready: %s, %s on %s", self._manifest.model_id, self._settings.weights, self._settings.device
        )

    async def _watch(self) -> None:
        """Stop serving once the engine has failed: started anew, the process has a whole one."""
        while self._availability.state != "failed":
            await asyncio.sleep(_WATCH_INTERVAL_S)
        self._server.should_exit = True

    def _on_loaded(self, loading: asyncio.Task[None]) -> None:
        if not loading.cancelled() and loading.exception() is not None:
            self._availability.fail()
            self._server.should_exit = True


def _load_models(settings: Settings, manifest: Manifest) -> _Models:
    variant, directory = manifest.variants[settings.weights], settings.model_dir
    device = _device_config(settings)
    language_model = LanguageModel(
        directory / variant.language_model, directory / variant.text_embeddings, device
    )
    engine = Engine(language_model, _engine_config(settings, manifest, language_model))
    encoder = VisionEncoder(
        ov.Core(),
        directory / variant.image_encoder,
        settings.device,
        _encoder_properties(settings, device),
        manifest.model.image,
    )
    tokenizer = SentencePieceTokenizer(directory / manifest.tokenizer, manifest.model.token_ids)
    vision = VisionWorker(encoder, cache=EmbeddingCache(settings.image_cache_size))
    return _Models(engine, vision, tokenizer)


def _device_config(settings: Settings) -> DeviceConfig:
    cores = num_cores()
    # OpenVINO counts the machine's cores; more threads than the container's share fight for it.
    is_cut = settings.device == "CPU" and cores < (os.cpu_count() or 1)
    logger.info("cores for inference: %d of %s", cores, os.cpu_count())
    extra = {} if settings.cache_dir is None else {"CACHE_DIR": str(settings.cache_dir)}
    if settings.inference_precision == "f32":
        extra["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = "0"  # it rounds activations to 8 bits, whatever the hint
    return DeviceConfig(
        device=settings.device,
        kv_cache_precision=settings.kv_cache_precision,
        inference_precision=settings.inference_precision or _default_precision(settings.device),
        num_threads=cores if is_cut else None,
        extra=extra,
    )


def _default_precision(device: str) -> str | None:
    """docs/decisions/0008-precision.md: a CPU with bf16 instructions would use them unasked."""
    return "f32" if device == "CPU" else None


def _encoder_properties(settings: Settings, device: DeviceConfig) -> dict[str, object]:
    properties: dict[str, object] = dict(device.extra)
    if device.inference_precision is not None:
        properties["INFERENCE_PRECISION_HINT"] = device.inference_precision
    if device.num_threads is not None:
        properties["INFERENCE_NUM_THREADS"] = device.num_threads
    return properties


def _engine_config(settings: Settings, manifest: Manifest, language_model: LanguageModel) -> EngineConfig:
    context = manifest.model.max_position_embeddings
    budget: int | None = settings.kv_cache_size
    if budget is None:
        blocks = -(-context // language_model.block_size) * settings.max_num_seqs
        budget = min(blocks * language_model.block_bytes, memory_limit_bytes() // _KV_CACHE_SHARE)
    elif settings.device == "CPU" and budget > memory_limit_bytes():
        raise StartupError(
            f"MINICPMV_KV_CACHE_SIZE: {budget >> 20} MiB is more than this machine or container has "
            f"({memory_limit_bytes() >> 20} MiB)"
        )
    logger.info("KV cache: %d MiB of %s", budget >> 20, settings.kv_cache_precision)
    return EngineConfig(
        max_position_embeddings=context,
        eos_token_id=manifest.model.token_ids.eos,
        kv_cache_bytes=budget,
        max_num_seqs=settings.max_num_seqs,
        max_num_batched_tokens=settings.max_num_batched_tokens,
        enable_prefix_caching=settings.enable_prefix_caching,
    )


def _generator_config(settings: Settings, manifest: Manifest) -> GeneratorConfig:
    return GeneratorConfig(
        image=manifest.model.image,
        token_ids=manifest.model.token_ids,
        vocab_size=manifest.model.vocab_size,
        max_in_flight=settings.max_num_seqs + settings.max_queue,
        max_images=settings.max_images,
        image_limits=ImageLimits(
            max_bytes=settings.max_image_bytes,
            max_pixels=settings.max_image_pixels,
            max_side=settings.max_image_side,
            max_aspect_ratio=settings.max_image_aspect_ratio,
        ),
        max_total_pixels=settings.max_total_image_pixels,
    )


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
    files = "".join(manifest.files[name].sha256 for name in manifest.variant_files(settings.weights))
    setup = f"{ov.__version__} {settings.device} {settings.kv_cache_precision} {settings.inference_precision}"
    return f"fp_{hashlib.sha256((files + setup).encode()).hexdigest()[:12]}"


def _compare_with_golden(
    answer: str, settings: Settings, manifest: Manifest, tokenizer: SentencePieceTokenizer
) -> None:
    """Say whether the first answer is the artifact's; a device that computes nonsense shows here."""
    variant: Variant = manifest.variants[settings.weights]
    detokenizer = Detokenizer(tokenizer, manifest.model.token_ids)
    expected = detokenizer.push(variant.golden_tokens) + detokenizer.flush()
    if answer == expected:
        logger.info("the golden answer is the artifact's")
        return
    # Reduced precision may change a token; with f32 throughout it must not.
    exact = settings.inference_precision == settings.kv_cache_precision == "f32"
    logger.log(
        logging.WARNING if exact else logging.DEBUG,
        "the golden answer differs from the artifact's, made with f32 inference and cache",
    )


def _as_startup_error(error: Exception) -> StartupError:
    if isinstance(error, StartupError):
        return error
    log_unexpected(error)
    cause = error.message if isinstance(error, ServiceError) else type(error).__name__
    return StartupError(f"the model could not be loaded and tried: {cause}")
