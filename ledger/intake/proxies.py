"""The address of a client, which only a trusted proxy may tell."""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

HEADER = b"x-forwarded-for"

_Address = IPv4Address | IPv6Address


class TrustedProxies:
    """The networks of the reverse proxies in front of this server."""

    def __init__(self, networks: Iterable[str] = ()) -> None:
        self._networks = [ip_network(network) for network in networks]

    def trust(self, host: str) -> bool:
        """Return whether an address is a trusted proxy's."""
        if not self._networks:
            return False
        address = _parsed(host)
        return address is not None and self._trust(address)

    def client_of(self, peer: str, headers: Iterable[tuple[bytes, bytes]]) -> str:
        """Return the address of the client of a request that came from a trusted proxy.

        Each proxy appends the address that it got the request from. What stands before the last
        address that is not a trusted proxy's was written by that client, so it is no evidence.
        """
        told = b",".join(value for name, value in headers if name == HEADER)
        client = peer
        for word in reversed(told.decode("latin-1").split(",")):
            address = _parsed(_without_port(word.strip()))
            if address is None:
                break
            client = str(address)
            if not self._trust(address):
                break
        return client

    def _trust(self, address: _Address) -> bool:
        return any(address in network for network in self._networks)


def neighbourhood(host: str) -> str:
    """Return what counts as one client: an IPv4 address, or the /64 network of an IPv6 address.

    A client of IPv6 has a network of at least this size, and may use any address of it.
    """
    if ":" not in host:
        return host
    address = _parsed(host)
    if isinstance(address, IPv6Address):
        return str(IPv6Network((int(address), 64), strict=False))
    return str(address or host)


def _parsed(text: str) -> _Address | None:
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _without_port(text: str) -> str:
    """Return an address that a proxy may have written as `1.2.3.4:5` or `[::1]:5`."""
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text
