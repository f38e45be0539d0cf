"""Owns the models of one run: compiled and placed as settings and manifest say; starts and serves nothing."""

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import openvino as ov

from service.artifacts import Manifest, Variant
from service.device_cards import image_encoder_card, language_model_card, text_embeddings_card
from service.engine.engine import Engine, EngineConfig
from service.engine.language_model import LanguageModel
from service.engine.router import EngineRouter
from service.engine.runner_choice import load_language_model
from service.engine.stateful_model import StatefulModel
from service.errors import StartupError
from service.placement import Precisions, image_encoder_properties, kv_cache_bytes, place_engines
from service.prompt.tokenizer import SentencePieceTokenizer
from service.protocol.device_list import DeviceCard
from service.settings import Settings
from service.vision.embedding_cache import EmbeddingCache
from service.vision.encoder import VisionEncoder
from service.vision.worker import VisionWorker

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Models:
    """What is loaded in the background and must be stopped."""

    router: EngineRouter
    vision: VisionWorker
    tokenizer: SentencePieceTokenizer
    devices: tuple[DeviceCard, ...]  # an engine's in the place of the engine, then the others

    def stop(self) -> None:
        self.router.stop()
        self.vision.close()


def load_models(settings: Settings, manifest: Manifest, cache_dir: Path | None) -> Models:
    """Compile every part and allocate the KV caches; engines are not started. Raises StartupError."""
    variant, directory = manifest.variants[settings.weights], settings.model_dir
    places = place_engines(settings.device, _precisions(settings, variant), cache_dir)
    language_models = [
        load_language_model(
            directory / variant.language_model, directory / variant.text_embeddings, place, settings.runner
        )
        for place in places
    ]
    engines = [
        Engine(model, _engine_config(settings, manifest, model, place.device))
        for model, place in zip(language_models, places, strict=True)
    ]
    encoder = _load_encoder(settings, manifest, cache_dir)
    tokenizer = SentencePieceTokenizer(directory / manifest.tokenizer, manifest.model.token_ids)
    vision = VisionWorker(encoder, cache=EmbeddingCache(settings.image_cache_size))
    _log_cache_use([*(model.compiled for model in language_models), encoder.compiled], cache_dir)
    devices = (
        *map(partial(language_model_card, settings.weights), places, language_models, engines),
        image_encoder_card(settings.weights, image_device(settings), encoder.compiled),
        text_embeddings_card(settings.weights),
    )
    return Models(EngineRouter(engines), vision, tokenizer, devices)


def _log_cache_use(compiled: list[ov.CompiledModel], cache_dir: Path | None) -> None:
    if cache_dir is not None:
        num_found = sum(bool(model.get_property("LOADED_FROM_CACHE")) for model in compiled)
        logger.info("found compiled in the cache directory: %d of %d models", num_found, len(compiled))


def _load_encoder(settings: Settings, manifest: Manifest, cache_dir: Path | None) -> VisionEncoder:
    device = image_device(settings)
    variant = manifest.variants[settings.weights]
    properties = image_encoder_properties(device, _precisions(settings, variant), cache_dir)
    path = settings.model_dir / variant.image_encoder
    try:
        return VisionEncoder(ov.Core(), path, device, properties, manifest.model.image)
    except RuntimeError:  # OpenVINO's text names paths of the machine that built it
        raise StartupError(
            f"the image encoder does not compile for device {device} (devices here: "
            f"{', '.join(ov.Core().available_devices)}): check MINICPMV_IMAGE_DEVICE or MINICPMV_DEVICE, the "
            "inference precision and the model's files"
        ) from None


def image_device(settings: Settings) -> str:
    """Where the image encoder runs."""
    return settings.image_device or settings.device[0]


def _precisions(settings: Settings, variant: Variant) -> Precisions:
    return Precisions(
        settings.kv_cache_precision,
        settings.inference_precision,
        variant.weight_group_size,
        settings.dynamic_quantization_group_size,
    )


def _engine_config(
    settings: Settings, manifest: Manifest, model: LanguageModel | StatefulModel, device: str
) -> EngineConfig:
    context = manifest.model.max_position_embeddings
    num_sequences = settings.max_num_seqs if model.is_paged else 1
    most_bytes = -(-context // model.block_size) * num_sequences * model.block_bytes
    budget = kv_cache_bytes(settings.device, device, settings.kv_cache_size, most_bytes)
    if not model.is_paged:
        logger.info("%s: stateful runner: one request at a time, no prefix cache, no speculation", device)
    logger.info("%s: KV cache of %d MiB, %s", device, budget >> 20, settings.kv_cache_precision)
    return EngineConfig(
        max_position_embeddings=context,
        eos_token_id=manifest.model.token_ids.eos,
        kv_cache_bytes=budget,
        max_num_seqs=settings.max_num_seqs,
        max_num_batched_tokens=settings.max_num_batched_tokens,
        enable_prefix_caching=settings.enable_prefix_caching,
        num_speculative_tokens=settings.num_speculative_tokens,
    )
