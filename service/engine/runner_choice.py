"""Chooses between paged and stateful running for a device, and loads accordingly; runs nothing itself."""

from pathlib import Path
from typing import Literal

import openvino as ov

from service.engine.language_model import DeviceConfig, LanguageModel, to_paged_attention
from service.engine.stateful_model import StatefulModel

RunnerChoice = Literal["auto", "paged", "stateful"]

_PAGED_PLUGINS = ("CPU", "GPU")
_PAGED_OPERATION = "PagedAttentionExtension"


def load_language_model(
    language_model: Path, text_embeddings: Path, config: DeviceConfig, choice: RunnerChoice = "auto"
) -> LanguageModel | StatefulModel:
    """Paged wherever the device can ("auto"), or as told. Raises StartupError where it does not compile."""
    if choice == "auto":
        choice = "paged" if has_paged_attention(config.device, language_model) else "stateful"
    kind = LanguageModel if choice == "paged" else StatefulModel
    return kind(language_model, text_embeddings, config)


def has_paged_attention(device: str, language_model: Path) -> bool:
    """Whether the plug-in itself takes every paged attention of the transformed graph.

    A device that answers no such question (AUTO, which may move a model between plug-ins whose blocks differ;
    one that is not there) has none. CPU and GPU are not asked: they have it, and asking costs a pass over
    all weights.
    """
    if device.split(".")[0] in _PAGED_PLUGINS:
        return True
    core = ov.Core()
    model = core.read_model(language_model)
    try:
        to_paged_attention(model)
        supported = core.query_model(model, device)
    except RuntimeError:
        return False
    paged = [op for op in model.get_ops() if op.get_type_name() == _PAGED_OPERATION]
    return bool(paged) and all(op.get_friendly_name() in supported for op in paged)
