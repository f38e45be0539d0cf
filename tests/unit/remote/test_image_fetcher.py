"""What comes over a real connection, and what of it is taken."""

import asyncio
import gzip
import logging
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from ipaddress import ip_address
from pathlib import Path

import pytest

from service.errors import ImageFetchError, TooLargeError
from service.remote.dialler import CheckedDialler
from service.remote.image_fetcher import FetchLimits, ImageFetcher
from service.remote.image_hosts import ImageHosts
from service.remote.public_address import IPAddress
from tests.image_host import Answer, ImageHost, reply, stay_silent

PARAM = "messages[0].content[0].image_url"
IMAGE = bytes(range(256)) * 40
# openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 36500 -subj /CN=images.test
#     -addext subjectAltName=DNS:images.test; the key and the certificate. They protect nothing.
CERTIFICATE = Path(__file__).with_name("images_test.pem")


def drip(connection: socket.socket) -> None:
    """A byte now and then, so that no read waits long."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while True:
        connection.sendall(b"x")
        connection.settimeout(0.02)
        try:
            if not connection.recv(1):
                return
        except TimeoutError:
            pass


def pour(connection: socket.socket) -> None:
    """Bytes without end, under a Content-Length of one."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        connection.sendall(b"1000\r\n" + bytes(4096) + b"\r\n")


ANSWERS: dict[str, Answer] = {
    "/image": reply(IMAGE, "Content-Type: text/plain", "Set-Cookie: a=b"),
    "/chunked": reply(
        b"".join(b"400\r\n" + IMAGE[i : i + 1024] + b"\r\n" for i in range(0, len(IMAGE), 1024))
        + b"0\r\n\r\n",
        "Transfer-Encoding: chunked",
    ),
    "/until-close": b"HTTP/1.0 200 OK\r\n\r\n" + IMAGE,
    "/identity": reply(IMAGE, "Content-Encoding: identity"),
    "/redirect": reply(b"", "Location: /image?token=secret", status="302 Found"),
    "/redirect-inside": reply(b"", "Location: http://169.254.169.254/", status="307 Temporary Redirect"),
    "/missing": reply(b"", status="404 Not Found"),
    "/partial": reply(IMAGE, status="206 Partial Content"),
    "/error": reply(b"", status="500 Internal Server Error"),
    "/gzip": reply(gzip.compress(bytes(1 << 20)), "Content-Encoding: gzip"),
    "/gzip-te": reply(gzip.compress(IMAGE), "Transfer-Encoding: gzip"),
    "/short": reply(IMAGE[:-1], f"Content-Length: {len(IMAGE)}"),
    "/short-chunk": reply(b"400\r\nxx", "Transfer-Encoding: chunked"),
    "/no-http": b"SSH-2.0-OpenSSH_9.2p1 Debian\r\n",
    "/endless-head": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000,
    "/nothing": b"",
    "/silent": stay_silent,
    "/drip": drip,
    "/pour": pour,
}


@pytest.fixture(scope="module")
def host() -> Iterator[ImageHost]:
    with ImageHost(ANSWERS) as host:
        yield host


def make_fetcher(host: ImageHost, **limits: float) -> ImageFetcher:
    hosts = ImageHosts([f"http://127.0.0.1:{host.port}"])
    return ImageFetcher(hosts, CheckedDialler(may_be_private=True), FetchLimits(**limits))  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["/image", "/chunked", "/until-close", "/identity"])
async def test_an_image(host: ImageHost, path: str) -> None:
    assert await make_fetcher(host).fetch(host.url(path), len(IMAGE), PARAM) == IMAGE


async def test_what_is_said_and_what_is_not(host: ImageHost, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    fetcher = make_fetcher(host)
    for _ in range(2):  # the first answer set a cookie
        host.requests.clear()
        await fetcher.fetch(host.url("/image#part"), len(IMAGE), PARAM)
        first, *headers = host.requests[0].removesuffix("\r\n\r\n").split("\r\n")
        assert first == "GET /image HTTP/1.1"
        assert sorted(headers) == [
            "Accept-Encoding: identity",
            "Accept: image/*",
            "Connection: close",
            f"Host: 127.0.0.1:{host.port}",
            "User-Agent: minicpmv-openvino",
        ]


@pytest.mark.parametrize(
    "path",
    [
        "/redirect",
        "/redirect-inside",
        "/missing",
        "/partial",
        "/error",
        "/gzip",
        "/gzip-te",
        "/short",
        "/short-chunk",
        "/no-http",
        "/endless-head",
        "/nothing",
        "/silent",
        "/drip",
    ],
)
async def test_all_failures_look_alike(host: ImageHost, caplog: pytest.LogCaptureFixture, path: str) -> None:
    caplog.set_level(logging.DEBUG)
    host.requests.clear()
    fetcher = make_fetcher(host, read_s=1 if path == "/silent" else 10, total_s=1)
    with pytest.raises(ImageFetchError) as caught:
        await fetcher.fetch(host.url(path), 1 << 24, PARAM)
    assert caught.value.param == PARAM
    assert caught.value.message == (
        "the image could not be fetched: its host must answer 200, without a redirect or a Content-Encoding, "
        "within 1 seconds"
    )
    assert caught.value.__cause__ is None
    assert len(host.requests) == 1, "no redirect is followed, nothing is tried again"
    assert "no image from 127.0.0.1: " in caplog.text
    assert path not in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize("resolved", ["nobody", "private", "closed"])
async def test_a_host_that_cannot_be_reached_fails_like_any_other(resolved: str) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))  # nobody listens
        port = reserved.getsockname()[1]
        name = "no-such-host.invalid" if resolved == "nobody" else "127.0.0.1"
        dialler = CheckedDialler(may_be_private=resolved != "private")
        fetcher = ImageFetcher(ImageHosts([f"http://{name}:{port}"]), dialler)
        with pytest.raises(ImageFetchError, match="could not be fetched"):
            await fetcher.fetch(f"http://{name}:{port}/", 100, PARAM)


async def test_a_host_that_is_not_listed_is_not_asked(host: ImageHost) -> None:
    host.requests.clear()
    fetcher = make_fetcher(host)
    for url in (host.url("/image", host="localhost"), "https://images.example.com/", "http://[", "http:x"):
        with pytest.raises(ImageFetchError, match="MINICPMV_IMAGE_HOSTS") as caught:
            await fetcher.fetch(url, 100, PARAM)
        assert caught.value.param == PARAM
        assert url not in caught.value.message
    assert not host.requests


@pytest.mark.parametrize(
    ("path", "max_bytes"), [("/image", len(IMAGE) - 1), ("/chunked", 5000), ("/pour", 100_000)]
)
async def test_bytes_are_counted_as_they_come(host: ImageHost, path: str, max_bytes: int) -> None:
    with pytest.raises(TooLargeError, match=f"larger than {max_bytes} bytes") as caught:
        await make_fetcher(host).fetch(host.url(path), max_bytes, PARAM)
    assert caught.value.param == PARAM


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


async def test_no_more_at_once_than_there_are_places_and_a_cancelled_one_gives_its_place_back(
    host: ImageHost,
) -> None:
    await until(lambda: host.num_open == 0)
    fetcher = make_fetcher(host, max_parallel=2)
    fetches = [asyncio.create_task(fetcher.fetch(host.url("/silent"), 100, PARAM)) for _ in range(4)]
    waiting = asyncio.create_task(fetcher.fetch(host.url("/image"), len(IMAGE), PARAM))
    await until(lambda: host.num_open == 2)
    await asyncio.sleep(0.1)  # would let a third one through, if there were one
    assert host.num_open == 2
    for fetch in fetches:
        fetch.cancel()
    assert await waiting == IMAGE
    await until(lambda: host.num_open == 0)


@pytest.fixture
def seen_names() -> list[str | None]:
    return []


@pytest.fixture
def tls_host(seen_names: list[str | None]) -> Iterator[ImageHost]:
    def note(_: ssl.SSLObject | ssl.SSLSocket, name: str | None, __: ssl.SSLContext) -> None:
        seen_names.append(name)

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    context.sni_callback = note
    with ImageHost(ANSWERS, context) as host:
        yield host


async def this_machine(host: str, port: int) -> Sequence[IPAddress]:
    return [ip_address("127.0.0.1")]


@pytest.mark.parametrize(
    ("name", "trusted"),
    [("images.test", True), ("other.test", True), ("127.0.0.1", True), ("images.test", False)],
)
async def test_the_certificate_must_be_the_names(
    tls_host: ImageHost, seen_names: list[str | None], name: str, trusted: bool
) -> None:
    fetcher = ImageFetcher(
        ImageHosts([f"{name}:{tls_host.port}"]),
        CheckedDialler(may_be_private=True, resolve=this_machine),
        ssl_context=ssl.create_default_context(cafile=CERTIFICATE) if trusted else None,
    )
    url = f"https://{name}:{tls_host.port}/image"
    if name == "images.test" and trusted:
        assert await fetcher.fetch(url, len(IMAGE), PARAM) == IMAGE
        assert f"\r\nHost: images.test:{tls_host.port}\r\n" in tls_host.requests[0]
    else:
        with pytest.raises(ImageFetchError, match="could not be fetched"):
            await fetcher.fetch(url, len(IMAGE), PARAM)
        assert not tls_host.requests
    assert seen_names == [None if name == "127.0.0.1" else name]
