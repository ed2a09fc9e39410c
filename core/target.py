"""Takes the URL of a request apart, once: the host that is checked is the host that is connected to. Does no I/O.

The function checks image_url and webhook_url with it, and the worker connects with it, so both see the same host.
Path and query stay as they were given, byte by byte, because a signature in a link may cover them. Only characters that
no URL may contain are quoted (RFC 3986, section 2).
"""

import re
from base64 import b64encode
from ipaddress import IPv6Address
from typing import NamedTuple
from urllib.parse import quote, unquote_to_bytes, urljoin

ADDRESS = re.compile(r"(?P<scheme>https?)://(?P<authority>[^/?#]*)(?P<path>[^#]*)(#.*)?", re.IGNORECASE)
AUTHORITY = re.compile(r"(?:(?P<login>.*)@)?(?:\[(?P<ipv6>[^\]]*)\]|(?P<name>[^:@\[\]]+))(?::(?P<port>[0-9]{0,5}))?")
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
ILLEGAL = re.compile(r"[^A-Za-z0-9._~:/?@!$&'()*+,;=%\[\]-]|%(?![0-9A-Fa-f]{2})")
HOST = re.compile(r"[A-Za-z0-9._~-]+")
MAX_HOST = 253
"""Longest name of a host in characters (RFC 1035, 2.3.4)."""
PORTS = {"http": 80, "https": 443}


class Target(NamedTuple):
    """Where a request goes."""

    scheme: str
    """`http` or `https`."""
    host: str
    """A name in ASCII (IDNA, UTS 46), an IPv4 address, or an IPv6 address without brackets."""
    port: int
    path: str
    """Path and query as in the URL, at least "/"."""
    headers: dict[str, str]
    """`Authorization`, if the URL contains a login (RFC 7617); else nothing."""


def parse(url: str) -> Target:
    """Take an http or https URL apart.

    Raises ValueError for other URLs, and for URLs that programs read in different ways: those with control characters,
    or with a backslash in the host.
    """
    url = url.strip(" ")
    found = ADDRESS.fullmatch(url)
    if found is None or CONTROL.search(url) or "\\" in found["authority"]:
        raise ValueError("not an http or https address")
    parts = AUTHORITY.fullmatch(found["authority"])
    scheme = found["scheme"].lower()
    port = int((parts and parts["port"]) or PORTS[scheme])
    if parts is None or port > 65535:
        raise ValueError("no host, or an invalid port")
    host = _name(parts["name"]) if parts["ipv6"] is None else _ipv6(parts["ipv6"])
    path = ILLEGAL.sub(lambda one: quote(one[0], safe="", errors="surrogateescape"), found["path"])
    return Target(scheme, host, port, path if path.startswith("/") else f"/{path}", _login(parts["login"]))


def follow(url: str, location: str) -> str:
    """Return the URL to which a redirect from `url` leads: `location` as it stands, if it is absolute.

    `location` is the header as http.client returns it: bytes, read as Latin-1. Raises ValueError.
    """
    text = location.encode("latin-1").decode("utf-8", "surrogateescape")
    if CONTROL.search(text):
        raise ValueError("a control character in a redirect")
    return text if SCHEME.match(text) else urljoin(url, text)


def _name(text: str) -> str:
    """Return a host's name in ASCII and lower case. Raises ValueError."""
    name = text.lower() if text.isascii() else _in_ascii(text)
    if not HOST.fullmatch(name) or len(name) > MAX_HOST:
        raise ValueError("invalid host")
    return name


def _in_ascii(text: str) -> str:
    import idna  # its tables take time to load, and most requests do not need them

    return idna.encode(text, uts46=True).decode("ascii")


def _ipv6(text: str) -> str:
    """Return an IPv6 address in its usual form. Raises ValueError, also for a zone: only link-local ones have zones."""
    if "%" in text:
        raise ValueError("an IPv6 zone")
    return str(IPv6Address(text))


def _login(text: str | None) -> dict[str, str]:
    return {"Authorization": "Basic " + b64encode(unquote_to_bytes(text)).decode("ascii")} if text else {}
