"""data: URLs are read, everything else is refused by name of the field and with a fixed text."""

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import ImageDecodeError, InvalidValueError, RequestError, TooLargeError
from service.vision.data_url import read_data_url

PARAM = "messages[0].content[1].image_url"
DATA = bytes(range(256))
TEXT = base64.b64encode(DATA).decode()


def read(url: str, max_bytes: int = 1000) -> bytes:
    return read_data_url(url, max_bytes, PARAM)


@pytest.mark.parametrize(
    "url",
    [
        f"data:image/png;base64,{TEXT}",
        f"DATA:image/PNG;BASE64,{TEXT}",
        f"data:;base64,{TEXT}",
        f"data:image/jpeg;charset=utf-8;name=a.jpg;base64,{TEXT}",
        f"  data:image/png; base64 , {TEXT}\n",
        f"data:image/png;base64,{TEXT.rstrip('=')}",
        "data:image/png;base64," + "\r\n".join(TEXT[i : i + 76] for i in range(0, len(TEXT), 76)),
        "data:image/png;base64," + base64.urlsafe_b64encode(DATA).decode(),
    ],
)
def test_what_clients_send_is_read(url: str) -> None:
    assert read(url) == DATA


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data",
        "https://example.com/a.png",
        "HTTPS://example.com/data:image/png;base64,AAAA",
        "file:///etc/passwd",
        "ftp://example.com/a.png",
        "//example.com/a.png",
        "javascript:alert(1)",
        "data:image/png,plain",
        "data:image/svg+xml;utf8,<svg/>",
        "data:image/png;base64",
        "data:" + "a" * 300 + ";base64,AAAA",
        "",
        TEXT,
    ],
)
def test_no_other_url_is_accepted(url: str) -> None:
    with pytest.raises(InvalidValueError, match=r"^only data URLs ") as raised:
        read(url)
    assert raised.value.param == PARAM
    assert "example" not in raised.value.message


@pytest.mark.parametrize(
    "payload", ["", "  ", "=", "A", "AAAAA", "AA=", "AAAA====", "AA==AA", "AA A*", "ÄÖ==", "%2B"]
)
def test_what_is_no_base64_is_refused(payload: str) -> None:
    with pytest.raises(ImageDecodeError) as raised:
        read(f"data:image/png;base64,{payload}")
    assert raised.value.param == PARAM


def test_the_size_is_known_before_decoding() -> None:
    url = "data:image/png;base64,"
    assert len(read(url + base64.b64encode(bytes(100)).decode(), max_bytes=100)) == 100
    with pytest.raises(TooLargeError, match="larger than 100 bytes") as raised:
        read(url + base64.b64encode(bytes(101)).decode(), max_bytes=100)
    assert raised.value.param == PARAM
    with pytest.raises(TooLargeError):  # not base64 at all: it was never looked at
        read(url + "*" * 400, max_bytes=100)


@settings(max_examples=50, deadline=None)
@given(data=st.binary(min_size=1, max_size=50))
def test_round_trip(data: bytes) -> None:
    assert read("data:image/png;base64," + base64.b64encode(data).decode()) == data


@settings(max_examples=50, deadline=None)
@given(url=st.text(max_size=40) | st.text(max_size=20).map("data:image/png;base64,".__add__))
def test_nothing_but_our_errors_comes_out(url: str) -> None:
    failure: RequestError | None = None
    try:
        read(url)
    except RequestError as error:
        failure = error
    assert failure is None or failure.param == PARAM
