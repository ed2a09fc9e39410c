"""Which IP addresses a worker may connect to for a client's URL: only public unicast addresses.

Allowed are all IPv4 addresses and the IPv6 addresses in 2000::/3, except those in the table. Sources: the IANA IPv4
and IPv6 Special-Purpose Address Registries (RFC 6890, RFC 8190) and the cloud providers' documents.
"""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

REFUSED: dict[Network, str] = {
    ip_network(text): source
    for text, source in {
        "0.0.0.0/8": "this network, RFC 791",
        "10.0.0.0/8": "private, RFC 1918",
        "100.64.0.0/10": "shared address space, RFC 6598; Alibaba's metadata service",
        "127.0.0.0/8": "loopback, RFC 1122",
        "168.63.129.16/32": "Azure's virtual host",
        "169.254.0.0/16": "link-local, RFC 3927; metadata services of most clouds",
        "172.16.0.0/12": "private, RFC 1918",
        "192.0.0.0/24": "IETF protocol assignments, RFC 6890; Oracle's metadata service",
        "192.0.2.0/24": "documentation, RFC 5737",
        "192.31.196.0/24": "AS112, RFC 7535",
        "192.52.193.0/24": "AMT, RFC 7450",
        "192.88.99.0/24": "6to4 relays, RFC 7526",
        "192.168.0.0/16": "private, RFC 1918",
        "192.175.48.0/24": "AS112, RFC 7534",
        "198.18.0.0/15": "benchmarking, RFC 2544",
        "198.51.100.0/24": "documentation, RFC 5737",
        "203.0.113.0/24": "documentation, RFC 5737",
        "224.0.0.0/4": "multicast, RFC 5771",
        "240.0.0.0/4": "reserved and broadcast, RFC 1112, RFC 8190",
        "2001::/23": "IETF protocol assignments (Teredo, ORCHID, …), RFC 2928",
        "2001:db8::/32": "documentation, RFC 3849",
        "2002::/16": "6to4, RFC 3056: carries an IPv4 address",
        "2620:4f:8000::/48": "AS112, RFC 7534",
        "3fff::/20": "documentation, RFC 9637",
    }.items()
}
GLOBAL_IPV6 = IPv6Network("2000::/3")
"""The only IPv6 range that is assigned for global unicast (RFC 4291)."""


def refusal_reason(address: str, allowed: Iterable[Network] = ()) -> str | None:
    """Return None when a worker may connect to the address, else the reason in a few words.

    `allowed` are networks that the operator allows although they are not public. Raises ValueError
    when the text is not an IP address.
    """
    ip = ip_address(address.partition("%")[0])
    if any(ip in network for network in allowed):
        return None
    if isinstance(ip, IPv6Address) and ip not in GLOBAL_IPV6:
        return "not global unicast, RFC 4291"
    return next((source for network, source in REFUSED.items() if ip in network), None)
