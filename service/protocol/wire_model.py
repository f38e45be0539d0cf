"""What all wire shapes share: JSON types are taken strictly, unknown fields refused."""

from pydantic import BaseModel, ConfigDict


class RequestModel(BaseModel):
    """Part of a request: a bool is no number, a float is finite, an unknown field is an error."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class ReplyModel(BaseModel):
    """Part of a reply."""

    model_config = ConfigDict(extra="forbid", frozen=True)
