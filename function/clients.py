"""Who sends a request, for limits that are counted in the process: an API key, or else an address."""

from ipaddress import ip_address, ip_network
from typing import NamedTuple

from starlette.requests import Request

from upres.function.jobs import ANY_OWNER

IPV6_NETWORK = 64
"""Bits of an IPv6 address that count: a network of one subscriber has 2^64 addresses (RFC 6177)."""


class ClientName(NamedTuple):
    """What limits are counted for: "key" and its id, or "address" and the address or network."""

    kind: str
    name: str


def client_name(request: Request, owner: str | None) -> ClientName | None:
    """Name the client of a request; `owner` is its API key's id, None without one, or ANY_OWNER with a token.

    None where UPRES_ACCESS is not set: only this machine is served then, and nothing is limited.
    """
    if not request.app.state.services.settings.access:
        return None
    if owner not in (None, ANY_OWNER):
        return ClientName("key", str(owner))
    return ClientName("address", _network(request.client.host if request.client else ""))


def _network(address: str) -> str:
    """Return an address, or the network of an IPv6 address; text that is no address as it is."""
    try:
        known = ip_address(address)
    except ValueError:
        return address
    if known.version == 4:
        return address
    if known.ipv4_mapped:  # on a socket for IPv4 and IPv6
        return str(known.ipv4_mapped)
    return str(ip_network((known, IPV6_NETWORK), strict=False))
