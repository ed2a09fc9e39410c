"""Addresses that an image_url must not reach, in many spellings.

The ranges are copied from IANA's IPv4 and IPv6 Special-Purpose Address Registries (read 2025-10), with the multicast
and reserved blocks, and from the cloud providers' documentation of their metadata services. They are independent of
the table that the worker uses.
"""

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

_IPV4 = """
0.0.0.0/8 0.0.0.0/32 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.0.0/29
192.0.0.8/32 192.0.0.9/32 192.0.0.10/32 192.0.0.170/32 192.0.0.171/32 192.0.2.0/24 192.31.196.0/24 192.52.193.0/24
192.88.99.0/24 192.168.0.0/16 192.175.48.0/24 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 240.0.0.0/4
255.255.255.255/32 224.0.0.0/4
"""
_IPV6 = """
::1/128 ::/128 ::ffff:0:0/96 64:ff9b::/96 64:ff9b:1::/48 100::/64 100:0:0:1::/64 2001::/23 2001::/32 2001:1::1/128
2001:1::2/128 2001:1::3/128 2001:2::/48 2001:3::/32 2001:4:112::/48 2001:10::/28 2001:20::/28 2001:30::/28
2001:db8::/32 2002::/16 2620:4f:8000::/48 3fff::/20 5f00::/16 fc00::/7 fe80::/10 fec0::/10 ff00::/8
"""
_CLOUDS = """
169.254.169.254 169.254.170.2 169.254.169.123 100.100.100.200 192.0.0.192 168.63.129.16 fd00:ec2::254 fd20:ce::254
"""
IPV4_SPECIAL, IPV6_SPECIAL, METADATA = _IPV4.split(), _IPV6.split(), _CLOUDS.split()


def ipv4() -> list[IPv4Address]:
    """The first, a middle and the last address of each IPv4 range, and the IPv4 metadata services."""
    networks = [IPv4Network(text) for text in IPV4_SPECIAL]
    found = {network[index] for network in networks for index in (0, network.num_addresses // 2, -1)}
    return sorted(found | {IPv4Address(text) for text in METADATA if "." in text})


def ipv6() -> list[IPv6Address]:
    """The same selection for IPv6."""
    networks = [IPv6Network(text) for text in IPV6_SPECIAL]
    found = {network[index] for network in networks for index in (0, network.num_addresses // 2, -1)}
    return sorted(found | {IPv6Address(text) for text in METADATA if ":" in text})


def spellings(address: IPv4Address) -> Iterator[str]:
    """Spellings of an IPv4 address as the host of a URL that some resolvers, browsers or libraries accept."""
    a, b, c, d = address.packed
    number = int(address)
    yield from (f"{a}.{b}.{c}.{d}", f"{a}.{b}.{c}.{d}.", str(number), hex(number), f"0{number:o}")
    yield from (f"{a:#x}.{b:#x}.{c:#x}.{d:#x}", f"0{a:o}.0{b:o}.0{c:o}.0{d:o}")
    yield from (f"{a}.{number & 0xFFFFFF}", f"{a}.{b}.{number & 0xFFFF}", f"{a:#x}.{b}.0{number & 0xFFFF:o}")
    yield "".join(chr(ord(digit) + 0xFEE0) for digit in f"{a}.{b}.{c}.{d}")  # full-width digits and dots
    yield f"{a}。{b}。{c}。{d}"
    yield "".join(chr(0x2460 + int(digit) - 1) if digit in "123456789" else digit for digit in f"{a}.{b}.{c}.{d}")
    yield f"{a}.{b}.{c}.%{ord(str(d)[0]):x}{str(d)[1:]}"
    yield from (f"example.org@{a}.{b}.{c}.{d}", f"example.org:80@{a}.{b}.{c}.{d}", f"{a}.{b}.{c}.{d}%00.example.org")
    yield from map("[{}]".format, embedded(address))


def embedded(address: IPv4Address) -> Iterator[str]:
    """IPv6 addresses that contain the IPv4 address."""
    high, low = int(address) >> 16, int(address) & 0xFFFF
    yield from (f"::ffff:{address}", f"::ffff:{high:x}:{low:x}", f"0:0:0:0:0:ffff:{address}", f"::ffff:0:{address}")
    yield from (f"::{address}", f"64:ff9b::{address}", f"64:ff9b:1::{address}", f"2002:{high:x}:{low:x}::1")
    yield f"2001:0:{high:x}:{low:x}::{0xFFFF ^ high:x}:{0xFFFF ^ low:x}"
