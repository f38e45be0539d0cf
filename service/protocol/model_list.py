"""The bodies of GET /v1/models and /v1/models/{id}."""

from typing import Literal

from service.protocol.wire_model import ReplyModel


class ModelCard(ReplyModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str


class ModelList(ReplyModel):
    object: Literal["list"] = "list"
    data: tuple[ModelCard, ...]
