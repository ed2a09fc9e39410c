"""Who sends a request, for limits that are counted in the process: an API key, or else an address."""

from ipaddress import ip_address, ip_network
from typing import NamedTuple

from starlette.requests import Request

from upres.function.access import bearer

IPV6_NETWORK = 64
"""Bits of an IPv6 address that count: a network of one subscriber has 2^64 addresses (RFC 6177)."""


class ClientName(NamedTuple):
    """What limits are counted for: "key" and its id, or "address" and the address or network."""

    kind: str
    name: str


def client_name(request: Request, owner: str | None) -> ClientName | None:
    """Name the client of a request; `owner` is the id of its API key, None without one (also with a token).

    None where UPRES_ACCESS is not set: only this machine is served then, and nothing is limited.
    """
    if not request.app.state.services.settings.access:
        return None
    if owner is not None:
        return ClientName("key", owner)
    return ClientName("address", _network(request.client.host if request.client else ""))


def sender(request: Request) -> str | None:
    """Name who sends a request before its API key is looked up: the text of the key, valid or not, or else the address.

    None where no API keys are needed: behind a proxy all clients may have one address.
    """
    if request.app.state.services.settings.access != "keys":
        return None
    return bearer(request) or _network(request.client.host if request.client else "")


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
