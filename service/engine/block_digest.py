"""What a full KV block holds, as 256 bits; knows no block number and no cache.

A block's keys and values depend on every token before them too, so each digest covers its predecessor's:
equal digests mean equal prompts up to the block's end.
"""

import hashlib
import struct
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from service.engine.token_events import EngineRequest, ImageSpan

_DIGEST_SIZE = 32
_IMAGE_SLOTS = struct.Struct("<III32s")  # first slot's place in block and span, how many, span digest


def root_digest(cache_salt: bytes) -> bytes:
    """The parent of a first block: requests with different salts have nothing in common. 32 bytes.

    Clients choose the salt, so it is hashed as another kind of thing than a block: none can be made to look
    like the beginning of somebody's prompt.
    """
    return hashlib.blake2b(cache_salt, digest_size=_DIGEST_SIZE, person=b"cache_salt").digest()


def block_digest(
    parent: bytes, token_ids: NDArray[np.int64], begin: int, image_spans: Iterable[ImageSpan]
) -> bytes:
    """Digest of the block of `token_ids` [block_size] that starts at position `begin` of its sequence.

    `image_spans` are those that overlap it. Their slots hold the same pad id whatever the image shows: what
    tells them apart is the span's digest and the slot's index. All parts but the number of spans have fixed
    lengths, so no two blocks of one size are written alike.
    """
    block = hashlib.blake2b(parent, digest_size=_DIGEST_SIZE, person=b"block")
    block.update(token_ids.tobytes())
    for span in image_spans:
        first = max(begin, span.start)
        end = min(begin + len(token_ids), span.start + len(span.embeddings))
        block.update(_IMAGE_SLOTS.pack(first - begin, first - span.start, end - first, span.digest))
    return block.digest()


def prompt_digests(request: EngineRequest, block_size: int) -> Iterator[bytes]:
    """Digests of the full blocks of a prompt that a cache can spare: its last token is always computed.

    The same as Sequence.block_digest's, of a request that is no sequence (yet).
    """
    digest = root_digest(request.cache_salt)
    for begin in range(0, (len(request.token_ids) - 1) // block_size * block_size, block_size):
        end = begin + block_size
        spans = [s for s in request.image_spans if s.start < end and begin < s.start + len(s.embeddings)]
        digest = block_digest(digest, request.token_ids[begin:end], begin, spans)
        yield digest
