"""Every kind of address that must not be dialled, in every way IPv6 has to write an IPv4 one."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.remote.public_address import IPAddress, is_private, is_public


def ways_to_write(address: IPv4Address) -> list[IPAddress]:
    """The address itself, v4-mapped, 6to4 and NAT64."""
    number = int(address)
    return [
        address,
        IPv6Address((0xFFFF << 32) + number),
        IPv6Address((0x2002 << 112) + (number << 80) + 1),
        IPv6Address((0x64FF9B << 96) + number),
    ]


@pytest.mark.parametrize(
    "text",
    ["8.8.8.8", "93.184.216.34", "1.1.1.1", "2606:4700:4700::1111", "2a00:1450:4001:81b::200e"],
)
def test_public(text: str) -> None:
    address = ip_address(text)
    written = ways_to_write(address) if isinstance(address, IPv4Address) else [address]
    assert all(is_public(way) and not is_private(way) for way in written)


@pytest.mark.parametrize(
    "text",
    ["10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1", "127.0.0.1", "127.255.0.1", "100.64.0.1"],
)
def test_private_ipv4(text: str) -> None:
    for way in ways_to_write(IPv4Address(text)):
        assert not is_public(way)
        assert is_private(way)


@pytest.mark.parametrize(
    "text",
    [
        "0.0.0.0",
        "0.1.2.3",
        "169.254.169.254",
        "192.0.0.1",
        "192.0.2.1",
        "192.88.99.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
    ],
)
def test_ipv4_that_nobody_may_dial(text: str) -> None:
    for way in ways_to_write(IPv4Address(text)):
        assert not is_public(way)
        assert not is_private(way)


@pytest.mark.parametrize(
    ("text", "private"),
    [
        ("::1", True),
        ("fd00:ec2::1", True),
        ("fc00::1", True),
        ("::", False),
        ("::127.0.0.1", False),  # v4-compatible, long withdrawn
        ("fe80::1", False),
        ("fe80::1%eth0", False),
        ("fec0::1", False),
        ("ff02::1", False),
        ("ff0e::1", False),
        ("100::1", False),
        ("2001::1", False),  # Teredo
        ("2001:db8::1", False),
        ("3fff::1", False),
        ("5f00::1", False),
        ("64:ff9b:1::808:808", False),  # NAT64 of somebody's own
    ],
)
def test_ipv6_that_is_not_public(text: str, private: bool) -> None:
    assert not is_public(ip_address(text))
    assert is_private(ip_address(text)) == private


@given(address=st.ip_addresses())
def test_no_address_is_both(address: IPAddress) -> None:
    assert not (is_public(address) and is_private(address))


@pytest.mark.parametrize(
    "network",
    [
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "224.0.0.0/3",
        "::/96",
        "fc00::/7",
        "fe80::/10",
        "ff00::/8",
    ],
)
def test_nothing_in_a_special_network_is_public(network: str) -> None:
    @given(address=st.ip_addresses(network=ip_network(network)))
    def check(address: IPAddress) -> None:
        written = ways_to_write(address) if isinstance(address, IPv4Address) else [address]
        assert not any(is_public(way) for way in written)

    check()
