"""The body of the health replies."""

from typing import Literal

from service.protocol.wire_model import ReplyModel


class Health(ReplyModel):
    status: Literal["ok"] = "ok"
