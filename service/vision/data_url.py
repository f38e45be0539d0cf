"""Owns the reading of `data:` URLs; knows nothing of what the bytes inside them are."""

import binascii
import re

from service.errors import ImageDecodeError, InvalidValueError, TooLargeError

# RFC 2397: data:[<mediatype>][;parameter=value]*;base64,<payload>. The media type is not believed: the
# decoder looks at the bytes.
_HEAD = re.compile(r"\s*data:[^,]{0,255};\s*base64\s*,", re.IGNORECASE)
_MAX_HEAD_CHARS = 512
_WHITESPACE = str.maketrans("", "", " \t\r\n\f\v")
_STANDARD_ALPHABET = str.maketrans("-_", "+/")


def read_data_url(url: str, max_bytes: int, param: str) -> bytes:
    """Bytes of a base64 data URL; whitespace in it, the URL-safe alphabet and absent padding are tolerated.

    Raises InvalidValueError for any other kind of URL (nothing is fetched here), TooLargeError before
    decoding when the payload stands for more than `max_bytes`, ImageDecodeError for what is no base64.
    """
    head = _HEAD.match(url[:_MAX_HEAD_CHARS])
    if head is None:
        raise InvalidValueError(
            "only data URLs (data:image/png;base64,...) are accepted; remote images are fetched only from "
            "hosts that the operator lists in MINICPMV_IMAGE_HOSTS",
            param,
        )
    padded = url[head.end() :].translate(_WHITESPACE).translate(_STANDARD_ALPHABET)
    payload = padded.rstrip("=")
    if len(payload) * 3 // 4 > max_bytes:
        raise TooLargeError(f"the image is larger than {max_bytes} bytes", param)
    data = _decode(payload, num_padding=len(padded) - len(payload))
    if not data:
        raise ImageDecodeError("the data URL does not hold valid base64", param)
    return data


def _decode(payload: str, num_padding: int) -> bytes:
    """Bytes of base64 without its padding, empty if there is anything wrong with either."""
    missing = -len(payload) % 4
    if num_padding not in (0, missing):
        return b""
    try:
        return binascii.a2b_base64((payload + "=" * missing).encode("ascii"), strict_mode=True)
    except (UnicodeEncodeError, binascii.Error):
        return b""
