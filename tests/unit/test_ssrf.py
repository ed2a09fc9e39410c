"""Server-side request forgery: fetch() never connects to an internal address, however the URL spells it."""

import socket
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from tests.support.addresses import IPV4_SPECIAL, IPV6_SPECIAL, METADATA, ipv4, ipv6, spellings
from tests.support.servers import IMAGE_HOST, body, http_server
from upres.core.errors import FetchError, UrlRefused
from upres.worker.fetch import fetch
from upres.worker.guard import FetchPolicy

INNER = [ip_network(text) for text in (*IPV4_SPECIAL, *IPV6_SPECIAL, *METADATA)]
SERVER = FetchPolicy((ip_network(f"{IMAGE_HOST}/32"),))


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Records the address of every attempted connection; only connections to the test's own server succeed."""
    tried: list[str] = []
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        tried.append(address[0])
        if address[0] != IMAGE_HOST:
            raise ConnectionRefusedError("not in this test")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
    return tried


def inside(tried: list[str]) -> list[str]:
    """The internal addresses among `tried`, without the test's own server."""
    return [
        one
        for one in tried
        if one != IMAGE_HOST and any(ip_address(one.partition("%")[0]) in network for network in INNER)
    ]


def hosts() -> list[str]:
    return [spelling for address in ipv4() for spelling in spellings(address)] + [f"[{address}]" for address in ipv6()]


def test_more_than_1000_spellings_are_tested() -> None:
    assert len(hosts()) > 1000
    assert len({ip_address(text) for text in METADATA}) == len(METADATA)


@pytest.mark.parametrize("port", ["", ":80", ":443"])
def test_no_internal_address_in_a_url_is_connected_to(connections: list[str], port: str) -> None:
    for host in hosts():
        with pytest.raises(FetchError):
            fetch(f"http://{host}{port}/image.png", 1000, seconds=5)
    assert inside(connections) == []


def test_no_redirect_to_an_internal_address_is_followed(connections: list[str]) -> None:
    target = ""

    def answer(handler: Any) -> None:
        handler.send_response(302)
        handler.send_header("Location", target)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    with http_server(answer) as url:
        for host in hosts():
            target = f"http://{host.encode().decode('latin-1')}/"  # the header is sent as UTF-8 bytes
            with pytest.raises(FetchError):
                fetch(url, 1000, SERVER, seconds=5)
    assert inside(connections) == []
    assert IMAGE_HOST in connections


TRICKS = [
    "http://93.184.215.14@127.0.0.1/", "http://93.184.215.14:80@127.0.0.1:80/", "http://a:b@c:d@127.0.0.1/",
    "http://93.184.215.14%23@127.0.0.1/", "http://93.184.215.14%2f@127.0.0.1/", "http://93.184.215.14%40127.0.0.1/",
    "http://93.184.215.14\\@127.0.0.1/", "http://127.0.0.1\\@93.184.215.14/", "http://127.0.0.1\\.example.org/",
    "http:\\\\127.0.0.1\\", "http:/\\127.0.0.1/", "http:/127.0.0.1/", "http:127.0.0.1/", "http:///127.0.0.1/",
    "http://127.0.0.1\t/", "http://127.0.0.1\r\n/", "http://93.184.215.14\t@127.0.0.1/", "\x00http://127.0.0.1/",
    "http://93.184.215.14/\r\nHost: 127.0.0.1\r\n\r\n", "http://93.184.215.14/\nX: y", "ht\ntp://127.0.0.1/",
    "http://127.0.0.1%00.example.org/", "http://%31%32%37.0.0.1/", "http://127.0.0.1:80:80/", "http://127.0.0.1:٨٠/",
    "http://[::ffff:127.0.0.1%25eth0]/", "http://[::1]x/", "http://[::1]@93.184.215.14:80@/", "http://[127.0.0.1]/",
]  # fmt: skip
"""URLs that programs read in different ways, so that a check may see another host than the connection."""


@pytest.mark.parametrize("trick", TRICKS)
def test_urls_that_can_be_misread_lead_nowhere(connections: list[str], trick: str) -> None:
    with pytest.raises(UrlRefused):
        fetch(trick, 1000, seconds=5)
    assert connections == []


@pytest.mark.parametrize("trick", TRICKS)
def test_redirects_that_can_be_misread_lead_to_no_internal_address(connections: list[str], trick: str) -> None:
    def answer(handler: Any) -> None:
        handler.wfile.write(b"HTTP/1.1 302 Found\r\nLocation: " + trick.encode() + b"\r\n\r\n")
        handler.close_connection = True

    with http_server(answer) as url, pytest.raises(FetchError):
        fetch(url, 1000, SERVER, seconds=5)
    assert inside(connections) == []


def test_what_follows_a_host_never_becomes_the_host(connections: list[str]) -> None:
    for rest in ("#@127.0.0.1/", "?@127.0.0.1/", "/@127.0.0.1/", "/\\127.0.0.1/", "//127.0.0.1/", "?#@127.0.0.1/"):
        with pytest.raises(FetchError, match="does not answer"):
            fetch(f"http://93.184.215.14{rest}", 1000, seconds=5)
    assert set(connections) == {"93.184.215.14"}


def resolving(monkeypatch: pytest.MonkeyPatch, answers: Iterator[list[str]]) -> None:
    """Replace DNS resolution: each call returns the next list of addresses."""

    def getaddrinfo(host: str, port: int, *rest: Any, **options: Any) -> list[Any]:
        return [
            (socket.AF_INET6 if ":" in one else socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port))
            for one in next(answers)
        ]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def test_a_host_name_with_an_internal_address_is_refused(
    connections: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS returns an internal address, alone or with a public address, in either order."""
    for address in map(str, (*ipv4(), *ipv6())):
        for answer in ([address], ["93.184.215.14", address], [address, "2606:2800:21f:cb07:6820:80da:af6b:8b2c"]):
            resolving(monkeypatch, iter([answer]))
            with pytest.raises(UrlRefused):
                fetch("http://example.org/", 1000, seconds=5)
    assert connections == []


def test_dns_rebinding_does_not_reach_an_internal_address(
    connections: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS returns a public address first and an internal one later; fetch() connects to the address that it checked."""
    for address in map(str, ipv4()):
        resolving(monkeypatch, iter([["93.184.215.14"], [address], [address]]))
        with pytest.raises(FetchError):
            fetch("http://example.org/", 1000, seconds=5)
    assert set(connections) == {"93.184.215.14"}


def test_public_addresses_are_connected_to(connections: list[str]) -> None:
    """The address check does not refuse every address."""
    for host in ("93.184.215.14", "[2606:2800:21f:cb07:6820:80da:af6b:8b2c]", "8.8.8.8"):
        with pytest.raises(FetchError, match="does not answer"):
            fetch(f"http://{host}/", 1000, seconds=5)
    assert len(connections) == 3


@pytest.mark.parametrize("port", [1, 22, 79, 81, 444, 6379, 8080, 65535])
def test_ports_other_than_80_and_443_are_refused(connections: list[str], port: int) -> None:
    with pytest.raises(UrlRefused, match=r"port \d+ is not allowed|not public"):
        fetch(f"http://93.184.215.14:{port}/", 1000, seconds=5)
    assert connections == []


def test_proxy_variables_and_netrc_are_ignored(
    connections: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A proxy could connect to refused addresses; passwords from .netrc must not be sent either."""
    (tmp_path / "netrc").write_text("default login somebody password secret")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    sent: list[str | None] = []

    def answer(handler: Any) -> None:
        sent.append(handler.headers["Authorization"])
        body(b"image")(handler)

    with http_server(answer) as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy)
        for scheme in ("http", "https"):
            with pytest.raises(FetchError, match="does not answer"):
                fetch(f"{scheme}://93.184.215.14/", 1000, seconds=5)
        assert set(connections) == {"93.184.215.14"}
        fetch(proxy, 1000, SERVER, seconds=5)
    assert sent == [None]


@pytest.mark.parametrize("host", ["example.org", "EXAMPLE.org.", "a.images.example.net"])
def test_only_hosts_of_the_allowlist_are_connected_to(
    connections: list[str], monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    resolving(monkeypatch, iter([["93.184.215.14"]] * 9))
    policy = FetchPolicy(hosts=("example.org", ".images.example.net"))
    with pytest.raises(FetchError, match="does not answer"):
        fetch(f"http://{host}/", 1000, policy, seconds=5)
    for other in ("example.com", "notexample.org", "example.org.evil.net", "images.example.net", "93.184.215.14"):
        with pytest.raises(UrlRefused, match="not one of the hosts"):
            fetch(f"http://{other}/", 1000, policy, seconds=5)
    assert len(connections) == 1
