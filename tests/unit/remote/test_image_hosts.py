"""Only a listed host, exactly, comes out of a URL, however the URL is written."""

from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from service.errors import StartupError
from service.remote.image_hosts import MAX_URL_LENGTH, ImageHosts

HOSTS = ImageHosts(
    ["Images.example.com", "store:9000", "http://plain.example", "xn--bcher-kva.example", "[2606:4700::1]"]
)


@pytest.mark.parametrize(
    ("url", "origin", "authority", "target"),
    [
        (
            "https://images.example.com/a/b.png?token=1#part",
            ("https", "images.example.com", 443),
            b"images.example.com",
            b"/a/b.png?token=1",
        ),
        (
            "HTTPS://IMAGES.EXAMPLE.COM:443",
            ("https", "images.example.com", 443),
            b"images.example.com",
            b"/",
        ),
        (
            "https://images.example.com?x=a b",
            ("https", "images.example.com", 443),
            b"images.example.com",
            b"/?x=a%20b",
        ),
        ("https://store:9000/ü", ("https", "store", 9000), b"store:9000", b"/%C3%BC"),
        ("http://plain.example/", ("http", "plain.example", 80), b"plain.example", b"/"),
        (
            "https://bücher.example/",
            ("https", "xn--bcher-kva.example", 443),
            b"xn--bcher-kva.example",
            b"/",
        ),
        ("https://[2606:4700::1]/", ("https", "2606:4700::1", 443), b"[2606:4700::1]", b"/"),
        # A dot by another name is the same host for whoever dials it: what is read here is what is dialled.
        (
            "https://images。example。com/",
            ("https", "images.example.com", 443),
            b"images.example.com",
            b"/",
        ),
    ],
)
def test_listed(url: str, origin: tuple[str, str, int], authority: bytes, target: bytes) -> None:
    found = HOSTS.find(url)
    assert found is not None
    assert (found.origin, found.authority, found.target) == (origin, authority, target)


@pytest.mark.parametrize(
    "url",
    [
        "http://images.example.com/",  # not over plain HTTP
        "https://plain.example/",
        "https://images.example.com:8443/",
        "https://images.example.com:0/",
        "https://images.example.com:99999/",
        "http://images.example.com:443/",
        "https://store/",
        "https://example.com/",
        "https://a.images.example.com/",
        "https://images.example.com.evil.example/",
        "https://images.example.com./",
        "https://evil-images.example.com/",
        "https://user@images.example.com/",
        "https://user:password@images.example.com/",
        "https://images.example.com@evil.example/",
        "https://images.example.com:443@evil.example/",
        "https://evil.example\\@images.example.com/",
        "https://evil.example#@images.example.com/",
        "https://evil.example?@images.example.com/",
        "https://evil.example/@images.example.com/",
        "https://images.example.com\\.evil.example/",
        "https://images.example.com%00.evil.example/",
        "https://images.example.com%2eevil.example/",
        "https://%69mages.example.com/",
        "https://images.example.com\x00/",
        "https://images.example.com\t/",
        "https://images.\nexample.com/",
        "https://images.example.com/\r\nX-Header: 1",
        "https://images\u00ad.example.com/",
        "https://ımages.example.com/",
        "https://ⓘmages.example.com/",
        "https:///images.example.com/",
        "https:images.example.com/",
        "//images.example.com/",
        "/images.example.com/",
        " https://images.example.com/",
        "ftp://images.example.com/",
        "file:///etc/passwd",
        "gopher://images.example.com/",
        "https://127.0.0.1/",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://0177.0.0.1/",
        "https://127.1/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[2606:4700:0::1]/",
        "https://[2606:4700::1%25eth0]/",
        "https://[images.example.com]/",
        "https://[/",
        "https://",
        "",
        "https://images.example.com/" + "a" * MAX_URL_LENGTH,
    ],
)
def test_not_listed(url: str) -> None:
    assert HOSTS.find(url) is None


def test_nothing_is_listed_where_nothing_is_allowed() -> None:
    assert ImageHosts([]).find("https://images.example.com/") is None


@pytest.mark.parametrize(
    "entry",
    [
        "a.example/path",
        "a.example?x",
        "u@a.example",
        "*.example.com",
        "a.example.",
        "0177.0.0.1",
        "ftp://a.example",
        "",
        "https://",
        "a b",
    ],
)
def test_what_is_no_host_cannot_be_listed(entry: str) -> None:
    with pytest.raises(StartupError, match="MINICPMV_IMAGE_HOSTS"):
        ImageHosts([entry])


_PIECES = [
    "https://",
    "http://",
    "images.example.com",
    "evil.example",
    "127.0.0.1",
    "[::ffff:127.0.0.1]",
    "2130706433",
    "@",
    ":",
    ":443",
    "\\",
    "/",
    "//",
    "?",
    "#",
    ".",
    "%00",
    "%2f",
    "%40",
    "\t",
    "\n",
    "\r",
    "\u3002",
    "\uff0f",
    "\uff20",
    "\u2100",
    " ",
    "[",
    "]",
    "x",
]


@given(url=st.lists(st.sampled_from(_PIECES), max_size=8).map("".join) | st.text(max_size=30))
@example("https://evil.example\\@images.example.com/")
@example("https://images.example.com\uff0f@evil.example/")
def test_no_parser_sees_another_host_than_the_one_that_is_dialled(url: str) -> None:
    """What is let through is so plain that other parsers agree; whoever logs or filters URLs may use one."""
    found = HOSTS.find(url)
    if found is None:
        return
    assert found.origin in {("https", "images.example.com", 443)}
    assert found.authority == b"images.example.com"
    assert found.target.startswith(b"/")
    assert not set(found.target) & set(b" \r\n\t\x00")
    for reading in (httpx.URL(url).raw_host.decode(), urlsplit(url).hostname):
        assert reading is not None
        assert reading.replace("\u3002", ".") == "images.example.com"
