"""Fetching image_url: what is fetched, what is refused, and that every address is checked before the connection."""

import socket
import time
from http.server import BaseHTTPRequestHandler
from ipaddress import ip_network

import pytest

from tests.support.servers import IMAGE_HOST, body, http_server
from upres.core.errors import TooManyBytes, UrlAnsweredError, UrlRefused, UrlUnreachable
from upres.worker.addresses import REFUSED, refusal_reason
from upres.worker.fetch import fetch
from upres.worker.guard import FetchPolicy

ALLOWED = FetchPolicy((ip_network(f"{IMAGE_HOST}/32"),))


def get(url: str, max_bytes: int = 1000, seconds: float = 5) -> bytes:
    return fetch(url, max_bytes, ALLOWED, seconds)


def test_a_body_of_the_maximum_size_is_fetched_and_a_larger_one_refused() -> None:
    with http_server(body(b"x" * 1000)) as url:
        assert get(url) == b"x" * 1000
        with pytest.raises(TooManyBytes):
            get(url, max_bytes=999)


def test_a_relative_redirect_is_followed() -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        (body(b"here") if handler.path == "/end" else body(b"", 301, {"Location": "/end"}))(handler)

    with http_server(answer) as url:
        assert get(f"{url}/start") == b"here"


@pytest.mark.parametrize(("status", "retryable"), [(404, False), (403, False), (429, True), (500, True), (503, True)])
def test_an_http_error_status_is_reported_as_retryable_or_not(status: int, retryable: bool) -> None:
    with http_server(body(b"no", status)) as url, pytest.raises(UrlAnsweredError, match=str(status)) as caught:
        get(url)
    assert caught.value.retryable is retryable


def test_endless_redirects_are_an_error() -> None:
    with http_server(body(b"", 302, {"Location": "/again"})) as url, pytest.raises(UrlUnreachable, match="redirects"):
        get(url)


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Records every address that a socket connects to; a connection to another host than IMAGE_HOST fails the test."""
    addresses: list[object] = []
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: tuple[str, int]) -> None:
        addresses.append(address[0])
        assert address[0] == IMAGE_HOST, f"tried to connect to {address}"
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
    return addresses


@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.1:9/", "http://169.254.169.254/latest/meta-data/", "http://[::1]/", "//127.0.0.1/",
        "file:///etc/passwd", "ftp://example.org/", "gopher://127.0.0.1:6379/_INFO",
    ],
)  # fmt: skip
def test_a_redirect_to_an_internal_address_or_other_scheme_is_refused(target: str, connected: list[object]) -> None:
    with http_server(body(b"", 302, {"Location": target})) as url, pytest.raises(UrlRefused):
        get(url)
    assert connected == [IMAGE_HOST]


@pytest.mark.parametrize("host", ["a..b", "x" * 64 + ".org", "exa mple.org", "example.org:99999"])
def test_an_invalid_host_or_port_is_refused_without_a_connection(host: str, connected: list[object]) -> None:
    with pytest.raises(UrlRefused):
        get(f"http://{host}/")
    assert connected == []


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "localhost", "10.0.0.1", "192.168.1.1", "172.16.0.1", "169.254.169.254", "100.100.100.200",
        "0.0.0.0", "168.63.129.16", "224.0.0.1", "255.255.255.255", "2130706433", "0x7f.1", "0177.0.0.1", "127.1",
        "[::1]", "[::]", "[::ffff:127.0.0.1]", "[fe80::1]", "[fc00::1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]",
    ],
)  # fmt: skip
def test_no_connection_is_made_to_addresses_that_are_not_public(host: str, connected: list[object]) -> None:
    with pytest.raises(UrlRefused, match="not a public address"):
        fetch(f"http://{host}/", 1000)
    assert connected == []


def test_a_host_name_is_refused_if_one_of_its_addresses_is_not_public(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(host: str, port: int, type: int = 0) -> list[object]:
        return [(socket.AF_INET, type, 6, "", (address, port)) for address in ("93.184.215.14", "10.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(UrlRefused, match="not a public address"):
        fetch("http://example.org/", 1000)


def test_a_url_with_port_6379_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(host: str, port: int, type: int = 0) -> list[object]:
        return [(socket.AF_INET, type, 6, "", ("93.184.215.14", port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(UrlRefused, match="port 6379"):
        fetch("http://example.org:6379/", 1000)


def test_a_proxy_in_the_environment_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with http_server(body(b"direct")) as url:
        assert get(url) == b"direct"


def test_a_closed_port_is_reported_as_unreachable() -> None:
    with http_server(body(b"")) as url:
        pass
    with pytest.raises(UrlUnreachable, match="does not answer"):
        get(url)


def test_an_unknown_host_name_is_reported_as_unreachable() -> None:
    with pytest.raises(UrlUnreachable, match=r"nowhere\.invalid"):
        get("http://nowhere.invalid/")


def test_redirects_do_not_extend_the_timeout() -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(0.15)  # the test needs a slow server
        body(b"", 302, {"Location": "/again"})(handler)

    with http_server(answer) as url, pytest.raises(UrlUnreachable, match=r"within 0\.3 seconds"):
        get(url, seconds=0.3)


@pytest.mark.parametrize("where", ["header", "body"])
def test_a_response_sent_byte_by_byte_exceeds_the_timeout(where: str) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        if where == "body":
            handler.send_response(200)
            handler.end_headers()
        try:
            for _ in range(200):
                handler.wfile.write(b"x")
                handler.wfile.flush()
                time.sleep(0.05)  # the test needs a slow server
        except OSError:
            pass

    begin = time.monotonic()
    with http_server(answer) as url:
        with pytest.raises(UrlUnreachable, match=r"within 0\.3 seconds"):
            get(url, seconds=0.3)
        assert time.monotonic() - begin < 5


def test_a_body_shorter_than_content_length_is_an_error() -> None:
    with http_server(body(b"short", headers={"Content-Length": "100"})) as url, pytest.raises(UrlUnreachable):
        get(url)


def test_the_first_and_last_address_of_every_refused_network_are_refused() -> None:
    for network in REFUSED:
        for address in (network[0], network[-1]):
            assert refusal_reason(str(address)), network
    assert refusal_reason("93.184.215.14") is None
    assert refusal_reason("2606:2800:21f:cb07:6820:80da:af6b:8b2c") is None
    assert refusal_reason("10.1.2.3", [ip_network("10.0.0.0/8")]) is None
