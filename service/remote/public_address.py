"""Which IP addresses are of the public internet, which of a private network; resolves no name."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

IPAddress = IPv4Address | IPv6Address

# All global unicast addresses that IANA hands out (RFC 4291, 2.4); what lies outside is local or reserved.
_GLOBAL_UNICAST = IPv6Network("2000::/3")
# Called global by Python 3.11, though nobody has them: 6to4 relays (RFC 7526), documentation (RFC 9637).
_NOBODYS = (IPv4Network("192.88.99.0/24"), IPv6Network("3fff::/20"))
_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052: the last 32 bits are the IPv4 address that is reached

# Loopback, RFC 1918, carrier-grade NAT (RFC 6598), unique local (RFC 4193). Link-local is not among them: the
# metadata services of clouds live there.
_PRIVATE = tuple(
    ip_network(network)
    for network in (
        "127.0.0.0/8",
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",
        "::1/128",
        "fc00::/7",
    )
)


def is_public(address: IPAddress) -> bool:
    """Whether it is a global unicast address, and so is the IPv4 address it may stand for."""
    address = _embedded(address)
    if any(address in network for network in _NOBODYS):
        return False
    if isinstance(address, IPv6Address) and address not in _GLOBAL_UNICAST:
        return False
    return address.is_global and not address.is_multicast


def is_private(address: IPAddress) -> bool:
    """Whether a host of one's own network, or this very machine, may have it."""
    address = _embedded(address)
    return any(address in network for network in _PRIVATE)


def _embedded(address: IPAddress) -> IPAddress:
    """The IPv4 address that an IPv6 one leads to: mapped, 6to4, NAT64; any other as it is."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(address.packed[-4:])
    return address.ipv4_mapped or address.sixtofour or address
