"""A place in an image that an answer names, as `grounding` asks for it."""

from typing import Literal

from service.protocol.wire_model import ReplyModel


class GroundedRegion(ReplyModel):
    """Numbers are x and y in turn; a box has left, top, right, bottom, a quad four corners, a point one."""

    label: str | None
    type: Literal["box", "quad", "point"]
    image_index: int | None
    pixels: tuple[float, ...] | None
    per_mille: tuple[int, ...]
