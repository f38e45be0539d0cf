"""Every format and mode, every way a file can be wrong or hostile."""

import struct
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps

from service.errors import ImageDecodeError, InvalidValueError, RequestError, TooLargeError
from service.vision.decode import ImageHeader, ImageLimits, decode_image, read_header
from tests.unit.vision.images import (
    PNG_SIGNATURE,
    exif_bytes,
    png,
    png_chunk,
    random_rgb,
    save,
    webp_canvas,
)

PARAM = "messages[0].content[2].image_url"
LIMITS = ImageLimits(max_aspect_ratio=1 << 14)  # every shape decodes; how long one may be is another test
LOSSLESS = ("PNG", "WEBP", "BMP")
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")


def decode(data: bytes, limits: ImageLimits = LIMITS) -> NDArray[np.uint8]:
    header = read_header(data, limits, PARAM)
    pixels = decode_image(data, header)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (header.height, header.width, 3)
    assert pixels.flags.owndata
    assert pixels.flags.c_contiguous
    return pixels


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (3, 5), (1, 3000), (3000, 1)])
def test_formats_and_sizes(kind: str, size: tuple[int, int]) -> None:
    height, width = size
    source = random_rgb(height, width)
    data = save(source, kind)
    assert read_header(data, LIMITS, PARAM) == ImageHeader(width, height, kind, 1, PARAM)
    pixels = decode(data)
    if kind in LOSSLESS:
        assert np.array_equal(pixels, source)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP"])
def test_opaque_modes(kind: str, mode: str) -> None:
    image = Image.fromarray(random_rgb(6, 7)).convert(mode)
    expected = np.asarray(image.convert("RGB"))
    if (kind, mode) == ("GIF", "RGB"):
        expected = np.asarray(image.convert("P", palette=Image.Palette.ADAPTIVE).convert("RGB"))
        assert decode(save(image, kind)).shape == expected.shape
    else:
        assert np.array_equal(decode(save(image, kind)), expected)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK", "YCbCr"])
def test_jpeg_modes(mode: str) -> None:
    flat = np.full((16, 16, 3), (200, 100, 50), dtype=np.uint8)
    image = Image.fromarray(flat).convert(mode)
    pixels = decode(save(image, "JPEG", quality=100))
    assert np.abs(pixels.astype(int) - np.asarray(image.convert("RGB")).astype(int)).max() <= 3


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_alpha_is_on_white(kind: str) -> None:
    rgba = np.array([[[10, 20, 30, 0], [10, 20, 30, 255], [0, 100, 200, 128]]], dtype=np.uint8)
    pixels = decode(save(Image.fromarray(rgba), kind))
    assert pixels[0, :2].tolist() == [[255, 255, 255], [10, 20, 30]]
    assert np.abs(pixels[0, 2].astype(int) - (127, 177, 227)).max() <= 1


def test_grey_with_alpha_is_on_white() -> None:
    image = Image.fromarray(np.array([[[10, 0], [10, 255]]], dtype=np.uint8), mode="LA")
    assert decode(save(image, "PNG"))[0].tolist() == [[255] * 3, [10] * 3]


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_transparent_palette_entry_is_white(kind: str) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    assert decode(save(image, kind, transparency=0))[0].tolist() == [[255] * 3, [40, 50, 60]]


def test_a_palette_with_alpha_is_on_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    pixels = decode(save(image, "PNG", transparency=bytes([255, 0])))
    assert pixels[0].tolist() == [[10, 20, 30], [255] * 3]


@pytest.mark.parametrize(
    ("depth", "color_type", "row", "transparent", "expected"),
    [
        (1, 0, b"\xa0", b"\0\0", [[255] * 3, [255] * 3, [255] * 3]),
        (1, 0, b"\xa0", b"\0\1", [[255] * 3, [0] * 3, [255] * 3]),
        (8, 0, b"\1\2\3", b"\0\2", [[1] * 3, [255] * 3, [3] * 3]),
        (8, 2, bytes(range(9)), b"\0\3\0\4\0\5", [[0, 1, 2], [255] * 3, [6, 7, 8]]),
        (16, 0, struct.pack(">3H", 1000, 40000, 65535), b"\x9c\x40", [[3] * 3, [255] * 3, [255] * 3]),
    ],
)
def test_a_transparent_colour_is_white(
    depth: int, color_type: int, row: bytes, transparent: bytes, expected: list[list[int]]
) -> None:
    data = png((3, 1), depth, color_type, [row], before=png_chunk(b"tRNS", transparent))
    assert decode(data)[0].tolist() == expected


@pytest.mark.parametrize(
    ("color_type", "values", "expected"),
    [
        (0, (40000,), [156] * 3),
        (2, (1000, 40000, 65535), [3, 156, 255]),
        (4, (40000, 65535), [156] * 3),
        (4, (40000, 0), [255] * 3),
        (6, (1000, 40000, 65535, 65535), [3, 156, 255]),
        (6, (1000, 40000, 65535, 0), [255] * 3),
    ],
)
def test_sixteen_bits(color_type: int, values: tuple[int, ...], expected: list[int]) -> None:
    row = struct.pack(f">{len(values)}H", *values)
    assert decode(png((1, 1), 16, color_type, [row]))[0, 0].tolist() == expected


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_counts(kind: str) -> None:
    frames = [Image.new("RGB", (5, 4), color) for color in ("red", "green", "blue")]
    data = save(frames[0], kind, save_all=True, append_images=frames[1:], duration=100)
    assert np.array_equal(decode(data), np.asarray(frames[0]))


def test_of_a_phones_multi_picture_the_first_counts() -> None:
    pictures = [Image.new("RGB", (16, 8), color) for color in ("red", "blue")]
    data = save(pictures[0], "MPO", save_all=True, append_images=pictures[1:])
    assert read_header(data, LIMITS, PARAM).format == "JPEG"
    assert decode(data)[0, 0, 0] > 200


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "PNG"])
def test_every_orientation_is_applied(kind: str, orientation: int) -> None:
    data = save(random_rgb(6, 10), kind, exif=exif_bytes(orientation))
    header = read_header(data, LIMITS, PARAM)
    assert header.orientation == orientation
    assert (header.width, header.height) == ((6, 10) if orientation > 4 else (10, 6))
    pixels = decode(data)
    plain = Image.fromarray(decode(save_without_exif(data, kind)))
    plain.getexif()[0x0112] = orientation
    assert np.array_equal(pixels, np.asarray(ImageOps.exif_transpose(plain)))


def save_without_exif(data: bytes, kind: str) -> bytes:
    """The same stored pixels, upright by lack of the tag."""
    upright = ImageHeader(10, 6, kind, 1, PARAM)
    return save(decode_image(data, upright), "PNG")


@pytest.mark.parametrize("place", ["before", "after"])
def test_a_png_may_carry_its_orientation_on_either_side(place: str) -> None:
    chunk = png_chunk(b"eXIf", exif_bytes(6).removeprefix(b"Exif\0\0"))
    data = png((2, 1), 8, 0, [b"\1\2"], **{place: chunk})
    assert decode(data)[:, 0, 0].tolist() == [1, 2]
    assert decode(data).shape == (2, 1, 3)


@pytest.mark.parametrize(
    "exif", [b"", b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"nonsense", exif_bytes(9)]
)
@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "PNG"])
def test_senseless_exif_is_ignored(kind: str, exif: bytes) -> None:
    data = save(random_rgb(3, 4), kind, exif=exif) if exif else save(random_rgb(3, 4), kind)
    assert read_header(data, LIMITS, PARAM).orientation == 1
    assert decode(data).shape == (3, 4, 3)


def test_cut_off_exif_warns_nobody() -> None:
    """Pillow warns of it, and warnings are errors here."""
    exif = exif_bytes(6)
    for length in range(6, len(exif)):
        decode(save(random_rgb(3, 4), "JPEG", exif=exif[:length]))


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_cut_off_anywhere_is_refused_or_whole(kind: str) -> None:
    data = save(random_rgb(24, 20, seed=1), kind)
    whole = decode(data)
    failures = []
    lengths = range(0, len(data), 7)
    for length in lengths:
        try:
            assert np.array_equal(decode(data[:length]), whole)
        except ImageDecodeError as error:
            failures.append(error)
    assert len(failures) >= len(lengths) - 3  # only what follows the pixels may be missing
    assert {error.param for error in failures} == {PARAM}
    assert not any("0x" in error.message for error in failures)


@pytest.mark.parametrize("kind", ["TIFF", "PPM", "ICO", "TGA", "PCX", "SGI", "AVIF", "PDF", "JPEG2000"])
def test_other_formats_are_refused(kind: str) -> None:
    with pytest.raises(ImageDecodeError, match="no PNG, JPEG, WebP, GIF or BMP"):
        read_header(save(random_rgb(16, 16), kind), LIMITS, PARAM)


@pytest.mark.parametrize(
    "data",
    [b"", b"\0", b"hello", b"<svg/>", PNG_SIGNATURE, b"\xff\xd8\xff", b"GIF89a", b"BM", b"RIFF\0\0\0\0WEBP"],
)
def test_no_image_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(ImageDecodeError) as raised:
        read_header(data, LIMITS, PARAM)
    assert raised.value.param == PARAM
    assert raised.value.__cause__ is None


def _bomb_png(width: int, height: int) -> bytes:
    return png((width, height), 8, 2, [b""])


def _bomb_gif(width: int, height: int) -> bytes:
    return b"GIF89a" + struct.pack("<HH", width, height) + save(random_rgb(4, 4), "GIF")[10:]


def _bomb_bmp(width: int, height: int) -> bytes:
    data = save(random_rgb(4, 4), "BMP")
    return data[:18] + struct.pack("<ii", width, height) + data[26:]


def _bomb_jpeg(width: int, height: int) -> bytes:
    data = save(random_rgb(4, 4), "JPEG")
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]


BOMBS: list[Callable[[int, int], bytes]] = [_bomb_png, _bomb_gif, _bomb_bmp, _bomb_jpeg, webp_canvas]


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("size", [(8000, 8000), (10_000, 9500), (16_000, 16_000), (16_383, 16_383)])
def test_pixel_bombs_are_refused_by_their_header(
    bomb: Callable[[int, int], bytes], size: tuple[int, int]
) -> None:
    data = bomb(*size)
    assert len(data) < 2000
    with pytest.raises(TooLargeError, match="pixels") as raised:
        read_header(data, LIMITS, PARAM)
    assert raised.value.param == PARAM


@pytest.mark.parametrize("bomb", BOMBS)
def test_what_the_header_promises_is_not_believed(bomb: Callable[[int, int], bytes]) -> None:
    """Within the limits, but the pixels are not there."""
    data = bomb(200, 100)
    header = read_header(data, LIMITS, PARAM)
    assert (header.width, header.height) == (200, 100)
    # A frame may be smaller than its canvas; libjpeg fills up with grey what an ended stream lacks.
    if bomb in (webp_canvas, _bomb_gif, _bomb_jpeg):
        assert decode_image(data, header).shape == (100, 200, 3)
    else:
        with pytest.raises(ImageDecodeError):
            decode_image(data, header)


def test_limits() -> None:
    data = save(random_rgb(10, 20), "PNG")
    read_header(data, ImageLimits(max_bytes=len(data), max_pixels=200, max_side=20), PARAM)
    for limits in (
        ImageLimits(max_bytes=len(data) - 1),
        ImageLimits(max_pixels=199),
        ImageLimits(max_side=19),
    ):
        with pytest.raises(TooLargeError) as raised:
            read_header(data, limits, PARAM)
        assert raised.value.param == PARAM


def test_pillows_own_limit_warns_nobody() -> None:
    limits = ImageLimits(max_pixels=10**9)
    assert read_header(_bomb_png(10_000, 9_500), limits, PARAM).width == 10_000


@pytest.mark.parametrize(
    "data",
    [
        PNG_SIGNATURE + png((4, 4), 8, 0, [bytes(4)] * 4)[8:33] + png_chunk(b"prVt", b"") * 100_000,
        b"\xff\xd8" + b"\xff\xe5\x00\x02" * 100_000,
        b"\xff\xd8" + b"\xff" * 100_000,
        b"GIF89a" + bytes(7) + b"\x21\xfe\x01a\x00" * 100_000,
    ],
    ids=["png chunks", "jpeg segments", "jpeg padding", "gif comments"],
)
def test_a_header_of_countless_parts_is_given_up(data: bytes) -> None:
    with pytest.raises(ImageDecodeError):
        read_header(data, LIMITS, PARAM)


def test_pixels_of_countless_parts_are_given_up() -> None:
    data = png((4, 4), 8, 0, [bytes(4)] * 4)
    cut = data.index(b"IDAT") - 4
    data = data[:cut] + png_chunk(b"IDAT", b"") * 100_000 + data[cut:]
    header = read_header(data, LIMITS, PARAM)
    with pytest.raises(ImageDecodeError):
        decode_image(data, header)


def test_another_image_than_the_headers_is_refused() -> None:
    header = read_header(save(random_rgb(3, 4), "PNG"), LIMITS, PARAM)
    with pytest.raises(ImageDecodeError, match="contradicts its header"):
        decode_image(save(random_rgb(4, 4), "PNG"), header)


@settings(max_examples=100, deadline=None)
@given(kind=st.sampled_from(FORMATS), data=st.data())
def test_damage_raises_only_our_errors(kind: str, data: st.DataObject) -> None:
    file = bytearray(save(random_rgb(9, 8), kind))
    for _ in range(data.draw(st.integers(1, 6))):
        file[data.draw(st.integers(0, len(file) - 1))] = data.draw(st.integers(0, 255))
    failure: RequestError | None = None
    try:
        decode(bytes(file), ImageLimits(max_pixels=1_000_000))
    except RequestError as error:
        failure = error
    assert failure is None or (failure.param == PARAM and len(failure.message) < 120)


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 300),
    height=st.integers(1, 300),
    mode=st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA"]),
    kind=st.sampled_from(["PNG", "WEBP"]),
)
def test_any_size_and_mode(width: int, height: int, mode: str, kind: str) -> None:
    assert decode(save(Image.new(mode, (width, height)), kind)).shape == (height, width, 3)


@pytest.mark.parametrize("size", [(201, 1), (1, 201), (2011, 10)])
def test_a_shape_too_long_for_the_encoder_is_refused_by_its_header(size: tuple[int, int]) -> None:
    with pytest.raises(InvalidValueError) as caught:
        read_header(save(random_rgb(size[1], size[0]), "PNG"), ImageLimits(), PARAM)
    assert caught.value.param == PARAM
    longest = random_rgb(1, 200)
    assert decode(save(longest, "PNG"), ImageLimits()).shape == longest.shape
