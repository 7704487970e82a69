"""Which addresses on a network are public. Opens nothing."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

__all__ = ["is_allowed"]

# Never reached, even where private addresses are: what clouds tell a machine about itself, its keys among it.
_METADATA = frozenset(
    ip_address(address)
    for address in ("168.63.129.16", "100.100.100.200", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254")
)
# IANA's registries of special-purpose addresses, as far as they are not for everybody, and multicast.
_PRIVATE_4 = [ip_network(n) for n in ("10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")]
_SPECIAL_4 = [
    ip_network(network)
    for network in (
        "0.0.0.0/8",
        "169.254.0.0/16",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",
    )
]
_PRIVATE_6 = [ip_network(network) for network in ("::1/128", "fc00::/7")]
_GLOBAL_6 = ip_network("2000::/3")
_SPECIAL_6 = [ip_network(network) for network in ("2001::/23", "2001:db8::/32", "3fff::/20")]
_NAT64 = ip_network("64:ff9b::/96")


def is_allowed(address: str, *, allow_private: bool = False) -> bool:
    """Whether a connection may go to an address, as the system's resolver writes it.

    Refused are private, loopback, link-local, multicast, reserved and unspecified addresses, those that clouds keep
    metadata under, and IPv6 addresses that stand for such an IPv4 address (mapped, 6to4, NAT64). Teredo is refused, too.

    Args:
        allow_private: whether private and loopback addresses are allowed, all the same.
    """
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, IPv6Address):
        inner = _inside(parsed)
        if inner is None:
            return _is_allowed_6(parsed, allow_private)
        parsed = inner
    return _is_allowed_4(parsed, allow_private)


def _is_allowed_4(address: IPv4Address, allow_private: bool) -> bool:
    if address in _METADATA or any(address in network for network in _SPECIAL_4):
        return False
    return allow_private or not any(address in network for network in _PRIVATE_4)


def _is_allowed_6(address: IPv6Address, allow_private: bool) -> bool:
    if address in _METADATA or address.scope_id is not None:
        return False
    if any(address in network for network in _PRIVATE_6):
        return allow_private
    return address in _GLOBAL_6 and not any(address in network for network in _SPECIAL_6)


def _inside(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that an IPv6 address stands for."""
    if address in _NAT64:
        return IPv4Address(address.packed[-4:])
    return address.ipv4_mapped or address.sixtofour
