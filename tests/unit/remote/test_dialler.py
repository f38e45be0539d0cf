"""What is dialled is what was checked: one look at the name, every address, no other."""

from collections.abc import Iterable, Sequence
from ipaddress import ip_address

import httpcore2
import pytest

from service.remote.dialler import AddressRefusedError, CheckedDialler, UnknownHostError, resolve_host
from service.remote.public_address import IPAddress


class Network(httpcore2.AsyncMockBackend):
    """Remembers who was dialled; some do not answer."""

    def __init__(self, unreachable: Iterable[str] = ()) -> None:
        super().__init__([])
        self.dialled: list[tuple[str, int]] = []
        self._unreachable = set(unreachable)

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        self.dialled.append((host, port))
        if host in self._unreachable:
            raise httpcore2.ConnectTimeout
        return await super().connect_tcp(host, port)


class Resolver:
    """Gives one answer after another, as a host does that rebinds its name."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self._answers = list(answers)
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, host: str, port: int) -> Sequence[IPAddress]:
        self.asked.append((host, port))
        return [ip_address(address) for address in self._answers.pop(0)]


async def test_a_rebound_name_is_dialled_where_it_was_checked() -> None:
    network, resolver = Network(), Resolver(["93.184.216.34"], ["127.0.0.1"])
    dialler = CheckedDialler(resolve=resolver, network=network)
    await dialler.connect_tcp("images.example.com", 443)
    assert network.dialled == [("93.184.216.34", 443)]
    assert resolver.asked == [("images.example.com", 443)]
    with pytest.raises(AddressRefusedError):
        await dialler.connect_tcp("images.example.com", 443)
    assert network.dialled == [("93.184.216.34", 443)]


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["93.184.216.34", "10.0.0.1"],
        ["10.0.0.1", "93.184.216.34"],
        ["169.254.169.254"],
        ["::ffff:127.0.0.1"],
        ["64:ff9b::a00:1"],
        ["fe80::1%lo"],
    ],
)
async def test_one_address_that_is_not_public_is_enough_to_dial_none(addresses: list[str]) -> None:
    network = Network()
    with pytest.raises(AddressRefusedError):
        await CheckedDialler(resolve=Resolver(addresses), network=network).connect_tcp("a.example", 443)
    assert network.dialled == []


async def test_private_addresses_if_the_operator_says_so_but_never_link_local_ones() -> None:
    network = Network()
    answers = (["10.0.0.1"], ["::1", "127.0.0.1"], ["169.254.169.254"], ["224.0.0.1"], ["0.0.0.0"])
    dialler = CheckedDialler(may_be_private=True, resolve=Resolver(*answers), network=network)
    for _ in range(2):
        await dialler.connect_tcp("store", 9000)
    for _ in range(3):
        with pytest.raises(AddressRefusedError):
            await dialler.connect_tcp("store", 9000)
    assert network.dialled == [("10.0.0.1", 9000), ("::1", 9000)]


async def test_the_next_address_is_tried_where_one_does_not_answer() -> None:
    network = Network(unreachable=["2606:4700::1"])
    resolver = Resolver(["2606:4700::1", "93.184.216.34", "93.184.216.35"])
    await CheckedDialler(resolve=resolver, network=network).connect_tcp("a.example", 443)
    assert [host for host, _ in network.dialled] == ["2606:4700::1", "93.184.216.34"]
    network = Network(unreachable=["93.184.216.34"])
    with pytest.raises(httpcore2.ConnectTimeout):
        await CheckedDialler(resolve=Resolver(["93.184.216.34"]), network=network).connect_tcp("a.example", 1)


async def test_the_systems_resolver() -> None:
    assert await resolve_host("127.0.0.1", 443) == [ip_address("127.0.0.1")]
    assert await resolve_host("2130706433", 443) == [ip_address("127.0.0.1")], "why addresses are checked"
    assert ip_address("127.0.0.1") in await resolve_host("localhost", 443)


@pytest.mark.parametrize("name", ["a..example", "x" * 64, "no-such-host.invalid"])
async def test_what_is_no_name_is_a_failed_connection(name: str) -> None:
    with pytest.raises(UnknownHostError):
        await CheckedDialler().connect_tcp(name, 443)


async def test_a_name_without_addresses() -> None:
    with pytest.raises(UnknownHostError):
        await CheckedDialler(resolve=Resolver([]), network=Network()).connect_tcp("a.example", 443)
