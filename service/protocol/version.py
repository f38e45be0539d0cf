"""The body of GET /version."""

from service.protocol.wire_model import ReplyModel


class Version(ReplyModel):
    version: str
