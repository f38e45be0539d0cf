"""Whatever changes a block's keys and values changes its digest."""

import numpy as np

from service.engine.block_digest import block_digest, root_digest
from service.engine.token_events import ImageSpan
from tests.unit.engine.scripted_model import image_span

ROOT = root_digest(b"")
PADS = np.zeros(4, dtype=np.int64)


def test_equal_blocks_have_equal_digests_of_256_bits() -> None:
    spans = (image_span(6, b"a"),)
    digest = block_digest(ROOT, PADS, 8, spans)
    assert len(digest) == len(ROOT) == 32
    assert digest == block_digest(root_digest(b""), PADS.copy(), 8, (image_span(6, b"a"),))
    moved = (image_span(46, b"a"),)  # the same slots of the span; where the block is, its parent says
    assert digest == block_digest(ROOT, PADS, 48, moved)


def test_different_blocks_have_different_digests() -> None:
    ids = np.array([0, 0, 0, 1], dtype=np.int64)
    span = image_span(0, b"a", 4)
    two = (image_span(0, b"a", 2), image_span(2, b"a", 2))
    digests = [
        block_digest(ROOT, PADS, 0, ()),
        block_digest(root_digest(b"salt"), PADS, 0, ()),
        block_digest(block_digest(ROOT, PADS, 0, ()), PADS, 4, ()),
        block_digest(ROOT, ids, 0, ()),
        block_digest(ROOT, ids[::-1].copy(), 0, ()),
        block_digest(ROOT, PADS, 0, (span,)),
        block_digest(ROOT, PADS, 0, (image_span(0, b"b", 4),)),
        block_digest(ROOT, PADS, 0, (image_span(1, b"a", 4),)),  # begins at the second token
        block_digest(ROOT, PADS, 1, (image_span(0, b"a", 5),)),  # begins with the second slot
        block_digest(ROOT, PADS, 0, (image_span(0, b"a", 3),)),  # the last is a pad typed as text
        block_digest(ROOT, PADS, 0, two),
        block_digest(ROOT, PADS, 0, two[::-1]),
    ]
    assert len(set(digests)) == len(digests)


def test_no_salt_looks_like_a_block() -> None:
    """Else its owner could write into the blocks that others find."""
    span = ImageSpan(0, np.zeros((4, 8), dtype=np.float32), bytes(32))
    assert root_digest(ROOT + PADS.tobytes()) != block_digest(ROOT, PADS, 0, ())
    record = np.array([0, 0, 4], dtype=np.uint32).tobytes() + span.digest
    assert root_digest(ROOT + PADS.tobytes() + record) != block_digest(ROOT, PADS, 0, (span,))
