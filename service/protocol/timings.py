"""Where the time of one request went, as `timings` asks for it."""

from service.protocol.wire_model import ReplyModel


class Timings(ReplyModel):
    """Milliseconds, each stage with the waiting in it."""

    image_ms: float  # images read, decoded and encoded
    queue_ms: float  # from then to the engine's first step with the request
    prefill_ms: float  # from then to the first token
    decode_ms: float  # from then to the last
