"""Owns the way from image bytes to RGB pixels, header first; knows nothing of slices or the model."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from service.errors import ImageDecodeError, InvalidValueError, TooLargeError

_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
_WHITE = (255, 255, 255)
_PNG_SIGNATURE_BYTES = 8
_MAX_PNG_CHUNKS = 16_384
# Pillow reads a file part by part in Python: five million empty JPEG segments (20 MB) take it 13 s. Honest
# headers need some hundred reads, honest pixels a few per PNG chunk.
_MAX_HEADER_READS = 4_096
_MAX_DECODE_READS = 100_000

# What undoes each value of EXIF's orientation tag (CIPA DC-008, tag 0x0112); 1 is upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What one image may cost; checked before anything of it is decoded.

    A larger `max_pixels` than twice Pillow's own MAX_IMAGE_PIXELS (178,956,970) has no effect.
    """

    max_bytes: int = 20 * 1024 * 1024
    max_pixels: int = 50_000_000
    max_side: int = 16_384
    max_aspect_ratio: int = (
        200  # longer side / shorter side; every new width is dear to the encoder's plug-in
    )


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What is known of an image without decoding it."""

    width: int  # pixels, upright
    height: int
    format: str  # one of PNG, JPEG, WEBP, GIF, BMP
    orientation: int  # EXIF's: 1 to 8
    param: str  # the request field the image came in

    @property
    def stored_size(self) -> tuple[int, int]:
        """(width, height) as in the file, before the orientation is applied."""
        sideways = self.orientation in _SIDEWAYS
        return (self.height, self.width) if sideways else (self.width, self.height)


def read_header(data: bytes, limits: ImageLimits, param: str) -> ImageHeader:
    """Size, format and orientation of an image; no pixel is decoded.

    Raises TooLargeError over a limit, InvalidValueError for a shape too long and ImageDecodeError for what
    is no PNG, JPEG, WebP, GIF or BMP.
    """
    if len(data) > limits.max_bytes:
        raise TooLargeError(f"the image is larger than {limits.max_bytes} bytes", param)
    file = _MeteredFile(data, _MAX_HEADER_READS)
    with _fixed_errors(param), Image.open(file, formats=_FORMATS) as image:
        stored_width, stored_height = image.size
        # MPO is a JPEG with more pictures behind it, as phones write them: the first one counts.
        kind = "JPEG" if image.format == "MPO" else str(image.format)
        orientation = _read_orientation(data, kind, image.info)
    _check_size(stored_width, stored_height, limits, param)
    sideways = orientation in _SIDEWAYS
    width, height = (stored_height, stored_width) if sideways else (stored_width, stored_height)
    return ImageHeader(width, height, kind, orientation, param)


def decode_image(data: bytes, header: ImageHeader) -> NDArray[np.uint8]:
    """Upright RGB pixels of the first frame, uint8 [height, width, 3]; transparent parts become white.

    `header` is what read_header said of the same bytes. Raises ImageDecodeError, also for an image that
    is cut off.
    """
    file = _MeteredFile(data, _MAX_DECODE_READS)
    with _fixed_errors(header.param), Image.open(file, formats=(header.format,)) as image:
        if image.size != header.stored_size:
            raise ImageDecodeError("the image contradicts its header", header.param)
        image.load()
        rgb = _to_rgb(image)
        if header.orientation in _UPRIGHT:
            rgb = rgb.transpose(_UPRIGHT[header.orientation])
        return np.array(rgb, dtype=np.uint8)


class _MeteredFile(io.BytesIO):
    """A file that fails after so many reads."""

    def __init__(self, data: bytes, max_reads: int) -> None:
        super().__init__(data)
        self._reads_left = max_reads

    def read(self, size: int | None = -1, /) -> bytes:
        self._reads_left -= 1
        if self._reads_left < 0:
            raise OSError("the file has too many parts")
        return super().read(size)


def _check_size(width: int, height: int, limits: ImageLimits, param: str) -> None:
    if width < 1 or height < 1:
        raise ImageDecodeError("the image has no pixels", param)
    if max(width, height) > limits.max_side:
        raise TooLargeError(f"a side of the image is longer than {limits.max_side} pixels", param)
    if max(width, height) > limits.max_aspect_ratio * min(width, height):
        raise InvalidValueError(
            f"the image is more than {limits.max_aspect_ratio} times as long as wide", param
        )
    if width * height > limits.max_pixels:
        raise TooLargeError(f"the image has more than {limits.max_pixels} pixels", param)


@contextmanager
def _fixed_errors(param: str) -> Iterator[None]:
    """Turn whatever Pillow raises into fixed texts; its own can name memory addresses (CVE-2026-22778)."""
    # Set anew each time and never restored: restoring filters is not safe between threads.
    warnings.filterwarnings("ignore", module=r"PIL(\.|$)")
    try:
        yield
    except (InvalidValueError, TooLargeError):
        raise
    except Image.DecompressionBombError:
        raise TooLargeError("the image has too many pixels", param) from None
    except Exception:  # broken files raise nearly everything: OSError, SyntaxError, struct.error, KeyError …
        raise ImageDecodeError(
            "the image cannot be read: it is damaged, cut off, or no PNG, JPEG, WebP, GIF or BMP", param
        ) from None


def _read_orientation(data: bytes, kind: str, info: dict[str | tuple[int, int], Any]) -> int:
    """EXIF orientation, 1 to 8; 1 where it is absent or senseless."""
    # Image.getexif() is not used: on a PNG it decodes the image.
    raw = _png_exif(data) or info.get("exif") if kind == "PNG" else info.get("exif")
    if not isinstance(raw, bytes):
        return 1
    exif = Image.Exif()
    try:
        exif.load(raw)
        value = exif.get(ExifTags.Base.Orientation, 1)
    except Exception:  # senseless metadata is no reason to refuse good pixels
        return 1
    return value if isinstance(value, int) and value in _UPRIGHT else 1


def _png_exif(data: bytes) -> bytes | None:
    """The eXIf chunk; it may stand behind the pixels, where opening the file does not see it."""
    position = _PNG_SIGNATURE_BYTES
    for _ in range(_MAX_PNG_CHUNKS):
        size = int.from_bytes(data[position : position + 4], "big")
        kind = data[position + 4 : position + 8]
        if kind == b"eXIf":
            return data[position + 8 : position + 8 + size]
        if len(kind) < 4:
            return None
        position += size + 12  # length, type, CRC
    return None


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        image = _to_eight_bits(image)
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image.convert("RGBA")
    flat = Image.new("RGB", rgba.size, _WHITE)
    flat.paste(rgba, mask=rgba.getchannel("A"))
    return flat


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey by its high byte, as libpng does for 16-bit colour (convert() would clip at 255)."""
    values = np.clip(np.asarray(image), 0, 65535).astype(np.uint16)  # [height, width]
    grey = Image.fromarray((values >> 8).astype(np.uint8))
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        grey.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return grey
