"""The body of GET /v1/devices."""

from typing import Literal

from service.protocol.wire_model import ReplyModel


class DeviceCard(ReplyModel):
    """One model on one device. What a role has none of, or a plug-in does not tell, is null."""

    id: str  # OpenVINO's name
    object: Literal["device"] = "device"
    full_name: str | None
    role: Literal["language_model", "image_encoder", "text_embeddings"]
    weights: str
    runner: Literal["paged", "stateful"] | None
    inference_precision: str | None
    kv_cache_precision: str | None
    kv_cache_bytes: int | None
    max_model_len: int | None  # tokens


class DeviceList(ReplyModel):
    object: Literal["list"] = "list"
    data: tuple[DeviceCard, ...]
