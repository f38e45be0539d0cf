"""What GET /v1/devices says of each loaded model, read from the compiled model; decides nothing."""

from typing import Literal

import openvino as ov

from service.engine.engine import Engine
from service.engine.language_model import DeviceConfig, LanguageModel
from service.engine.stateful_model import StatefulModel
from service.protocol.device_list import DeviceCard


def language_model_card(
    weights: str, place: DeviceConfig, model: LanguageModel | StatefulModel, engine: Engine
) -> DeviceCard:
    """The card of an engine."""
    return DeviceCard(
        id=place.device,
        full_name=_full_name(place.device),
        role="language_model",
        weights=weights,
        runner="paged" if model.is_paged else "stateful",
        inference_precision=_precision(model.compiled, "INFERENCE_PRECISION_HINT"),
        kv_cache_precision=_precision(model.compiled, "KV_CACHE_PRECISION") or place.kv_cache_precision,
        kv_cache_bytes=engine.stats().total_blocks * model.block_bytes,
        max_model_len=engine.max_model_len,
    )


def image_encoder_card(weights: str, device: str, compiled: ov.CompiledModel) -> DeviceCard:
    """The card of the image encoder."""
    return _card_without_cache(
        "image_encoder", weights, device, _precision(compiled, "INFERENCE_PRECISION_HINT")
    )


def text_embeddings_card(weights: str) -> DeviceCard:
    """The card of the text embeddings, a table on the CPU whatever the devices."""
    return _card_without_cache("text_embeddings", weights, "CPU", "f32")


def _card_without_cache(
    role: Literal["image_encoder", "text_embeddings"], weights: str, device: str, precision: str | None
) -> DeviceCard:
    return DeviceCard(
        id=device,
        full_name=_full_name(device),
        role=role,
        weights=weights,
        runner=None,
        inference_precision=precision,
        kv_cache_precision=None,
        kv_cache_bytes=None,
        max_model_len=None,
    )


def _full_name(device: str) -> str | None:
    try:
        return str(ov.Core().get_property(device, "FULL_DEVICE_NAME")).strip()
    except RuntimeError:  # AUTO has none
        return None


def _precision(compiled: ov.CompiledModel, name: str) -> str | None:
    """A property that holds an element type, spelt as in the settings."""
    try:
        return str(compiled.get_property(name).to_string())
    except RuntimeError:  # AUTO has none
        return None
