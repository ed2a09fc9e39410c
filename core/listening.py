"""Addresses to listen on."""

import socket


def any_address() -> str:
    """Return the address of all networks: "::", which includes IPv4, or "0.0.0.0" on machines without IPv6."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::", 0))
            only_ipv6 = probe.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    except OSError:
        only_ipv6 = 1
    return "0.0.0.0" if only_ipv6 else "::"  # noqa: S104  # the caller wants all addresses
