"""Owns the way from a host's name to a connection: resolve once, check all addresses, dial those; no HTTP."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from ipaddress import ip_address

import httpcore2

from service.remote.public_address import IPAddress, is_private, is_public

Resolve = Callable[[str, int], Awaitable[Sequence[IPAddress]]]


class UnknownHostError(httpcore2.ConnectError):
    """The name has no address, or is no name."""


class AddressRefusedError(httpcore2.ConnectError):
    """The name has an address that must not be dialled."""


async def resolve_host(host: str, port: int) -> Sequence[IPAddress]:
    """Addresses of a name as the system knows them. Raises OSError, or UnicodeError for what is no name."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [ip_address(address[0]) for *_, address in found]


class CheckedDialler(httpcore2.AsyncNetworkBackend):
    """The only thing through which the fetcher reaches a network.

    httpcore asks it for a host's name and goes on with that name for TLS: which certificate is asked for and
    held against what does not depend on the address.
    """

    def __init__(
        self,
        *,
        may_be_private: bool = False,
        resolve: Resolve = resolve_host,
        network: httpcore2.AsyncNetworkBackend | None = None,
    ) -> None:
        """`network` dials addresses."""
        self._may_be_private = may_be_private
        self._resolve = resolve
        self._network = network or httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Dial the host's addresses in the resolver's order until one answers.

        Raises ConnectError or ConnectTimeout; if any address must not be dialled, before dialling at all: a
        name that leads both outside and inside is nobody's honest mistake.
        """
        failure: Exception = UnknownHostError()
        for address in await self._addresses(host, port):
            try:
                return await self._network.connect_tcp(
                    str(address), port, timeout, local_address, socket_options
                )
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
        raise failure

    async def _addresses(self, host: str, port: int) -> Sequence[IPAddress]:
        try:
            addresses = await self._resolve(host, port)
        except (OSError, UnicodeError):
            raise UnknownHostError from None
        if not all(self._may_dial(address) for address in addresses):
            raise AddressRefusedError
        return addresses

    def _may_dial(self, address: IPAddress) -> bool:
        return is_public(address) or (self._may_be_private and is_private(address))
