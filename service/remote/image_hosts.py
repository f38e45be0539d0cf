"""Owns the list of hosts images may be fetched from, and the one reading of a URL; dials nobody."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import httpx2

from service.errors import StartupError

MAX_URL_LENGTH = 8192  # characters; longer ones are no request line that servers take

_PORTS = {"https": 443, "http": 80}
_LISTABLE = re.compile(r"[a-z0-9_.:-]*[a-z0-9_]")  # no wildcard, no escape, no dot at the end


@dataclass(frozen=True, slots=True)
class ImageUrl:
    """Where to go, what to ask for: nothing of the URL is read a second time."""

    scheme: str  # https or http
    host: str  # lower-case ASCII: a name as DNS has it, or an address
    port: int
    target: bytes  # path and query, in which there may be secrets

    @property
    def authority(self) -> bytes:
        """What the Host header says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}").encode("ascii")

    @property
    def origin(self) -> tuple[str, str, int]:
        return self.scheme, self.host, self.port


class ImageHosts:
    """Exact hosts, each with its scheme and port: subdomains, other ports and a host's address are others."""

    def __init__(self, entries: Iterable[str]) -> None:
        """Entries are `host`, `host:port`, or either behind `https://` or `http://`; https if none is there.

        Raises StartupError for what is no host.
        """
        self._origins = frozenset(_read_entry(entry).origin for entry in entries)

    def find(self, url: str) -> ImageUrl | None:
        """What a URL asks for, or None if its host is not listed, or if it is no proper URL."""
        image_url = _read(url)
        return image_url if image_url is not None and image_url.origin in self._origins else None


def _read_entry(entry: str) -> ImageUrl:
    image_url = _read(entry if "://" in entry else f"https://{entry}")
    if image_url is None or image_url.target != b"/" or not _LISTABLE.fullmatch(image_url.host):
        raise StartupError(
            f"MINICPMV_IMAGE_HOSTS: {entry!r} is no host: write it like images.example.com, "
            "images.example.com:8443 or http://images.example.com"
        )
    return image_url


def _read(url: str) -> ImageUrl | None:
    """A URL of http or https without user or password, its host in the form that is dialled."""
    if len(url) > MAX_URL_LENGTH:
        return None
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL:
        return None
    if parsed.scheme not in _PORTS or not parsed.raw_host or parsed.userinfo:
        return None
    port = _PORTS[parsed.scheme] if parsed.port is None else parsed.port
    return ImageUrl(parsed.scheme, parsed.raw_host.decode("ascii"), port, parsed.raw_path)
