"""Owns the fetching of remote images: from whom, how long, how much; does not look into what it brings."""

import asyncio
import logging
import ssl
from collections.abc import Iterable
from dataclasses import dataclass

import httpcore2

from service.errors import ImageFetchError, TooLargeError
from service.remote.image_hosts import ImageHosts, ImageUrl

_log = logging.getLogger(__name__)
# Its debug lines hold headers, and with a redirect's a whole URL.
logging.getLogger("httpcore2").setLevel(logging.WARNING)

_OK = 200
_FAILURES = (httpcore2.NetworkError, httpcore2.TimeoutException, httpcore2.ProtocolError, OSError)


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """What one fetch may take, and how many run at once in this process."""

    connect_s: float = 5.0  # to one address, and again for TLS
    read_s: float = 10.0  # without a byte
    total_s: float = 30.0  # from the wait for a place to the last byte
    max_parallel: int = 8


class ImageFetcher:
    """Belongs to the event loop. Each fetch has a connection of its own; nothing is kept between them.

    Over httpcore, not httpx: it follows no redirect, knows no proxy, keeps no cookie, sends no credentials
    and unpacks nothing, so there is nothing to turn off.
    """

    def __init__(
        self,
        hosts: ImageHosts,
        dialler: httpcore2.AsyncNetworkBackend,
        limits: FetchLimits | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        """`dialler` decides which addresses are reached; by default the system's authorities are trusted."""
        self._hosts = hosts
        self._dialler = dialler
        self._limits = limits or FetchLimits()
        self._ssl_context = ssl_context or httpcore2.default_ssl_context()
        self._places = asyncio.Semaphore(self._limits.max_parallel)

    async def fetch(self, url: str, max_bytes: int, param: str) -> bytes:
        """The bytes behind a URL; `param` is the request field it stands in.

        Raises ImageFetchError, which says why only if the host is not listed: anything else would tell
        clients what our network looks like. TooLargeError after `max_bytes`.
        """
        image_url = self._hosts.find(url)
        if image_url is None:
            raise ImageFetchError(
                "this server does not fetch images from this host; its operator lists those it does in "
                "MINICPMV_IMAGE_HOSTS",
                param,
            )
        try:
            async with asyncio.timeout(self._limits.total_s), self._places:
                content = await self._get(image_url, max_bytes)
        except (_ReplyError, *_FAILURES) as error:
            reason = error.reason if isinstance(error, _ReplyError) else type(error).__name__
            _log.info("no image from %s: %s", image_url.host, reason)
            raise ImageFetchError(
                "the image could not be fetched: its host must answer 200, without a redirect or a "
                f"Content-Encoding, within {self._limits.total_s:g} seconds",
                param,
            ) from None
        if content is None:
            raise TooLargeError(f"the image is larger than {max_bytes} bytes", param)
        return content

    async def _get(self, image_url: ImageUrl, max_bytes: int) -> bytes | None:
        """None if there are more than `max_bytes`, whatever the reply's Content-Length says."""
        url = httpcore2.URL(
            scheme=image_url.scheme.encode(),
            host=image_url.host.encode(),
            port=image_url.port,
            target=image_url.target,
        )
        connection = httpcore2.AsyncHTTPConnection(
            url.origin, ssl_context=self._ssl_context, network_backend=self._dialler
        )
        async with (
            connection,
            connection.stream(
                "GET", url, headers=_headers(image_url), extensions={"timeout": self._timeouts()}
            ) as reply,
        ):
            _check(reply.status, reply.headers)
            content = bytearray()
            async for part in reply.aiter_stream():
                content += part
                if len(content) > max_bytes:
                    return None
            return bytes(content)

    def _timeouts(self) -> dict[str, float]:
        limits = self._limits
        return {"connect": limits.connect_s, "read": limits.read_s, "write": limits.read_s}


class _ReplyError(Exception):
    """A reply we take no image from."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def _headers(image_url: ImageUrl) -> list[tuple[bytes, bytes]]:
    return [
        (b"Host", image_url.authority),
        (b"Accept", b"image/*"),
        (b"Accept-Encoding", b"identity"),
        (b"User-Agent", b"minicpmv-openvino"),
        (b"Connection", b"close"),
    ]


def _check(status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
    if status != _OK:
        raise _ReplyError(f"status {status}")
    for name, value in headers:
        if name.lower() == b"content-encoding" and value.strip().lower() != b"identity":
            raise _ReplyError("a Content-Encoding nobody asked for")
