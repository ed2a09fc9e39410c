"""Hostile image servers: fetch() fails within ten seconds and reads at most one chunk more than the byte limit."""

import gzip
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.servers import IMAGE_HOST, http_server
from upres.core.errors import FetchError, TooManyBytes
from upres.worker.fetch import CHUNK, TOTAL_SECONDS, fetch
from upres.worker.guard import FetchPolicy

CAP = 1_000_000
POLICY = FetchPolicy((ip_network(f"{IMAGE_HOST}/32"),))
Answer = Callable[[BaseHTTPRequestHandler], None]


class Sent:
    """Counts the bytes that a server could send before the connection was closed."""

    def __init__(self) -> None:
        self.bytes = 0

    def write(self, handler: BaseHTTPRequestHandler, data: bytes) -> None:
        handler.wfile.write(data)
        self.bytes += len(data)


def head(handler: BaseHTTPRequestHandler, *headers: tuple[str, str], status: int = 200) -> None:
    handler.send_response(status)
    for name, value in headers:
        handler.send_header(name, value)
    handler.end_headers()


def stopped(answer: Answer, expected: type[FetchError] | type[TooManyBytes], seconds: float = TOTAL_SECONDS) -> None:
    begin = time.monotonic()
    with http_server(lambda handler: _quietly(answer, handler)) as url:
        with pytest.raises(expected):
            fetch(url, CAP, POLICY, seconds)
        assert time.monotonic() - begin < 10


def _quietly(answer: Answer, handler: BaseHTTPRequestHandler) -> None:
    with suppress(OSError):  # fetch() closed the connection
        answer(handler)


def test_body_sent_byte_by_byte_exceeds_the_total_timeout() -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        head(handler, ("Content-Length", "1000"))
        for _ in range(1000):
            handler.wfile.write(b"x")
            time.sleep(0.05)

    stopped(answer, FetchError, seconds=1)


def test_headers_sent_byte_by_byte_exceed_the_total_timeout() -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
        for _ in range(1000):
            handler.wfile.write(b"y")
            time.sleep(0.05)

    stopped(answer, FetchError, seconds=1)


def test_server_that_sends_no_response_exceeds_the_total_timeout() -> None:
    stopped(lambda handler: time.sleep(3), FetchError, seconds=1)


@pytest.mark.parametrize("length", [None, "10", "100000000000"])
def test_endless_body_is_read_only_up_to_the_limit(length: str | None) -> None:
    sent = Sent()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)  # else it grows to megabytes
        head(handler, *([("Content-Length", length)] if length else []))
        while sent.bytes < 50 * CAP:
            sent.write(handler, b"x" * CHUNK)

    if length == "10":  # fetch() does not read more bytes than Content-Length says
        with http_server(lambda handler: _quietly(answer, handler)) as url:
            assert fetch(url, CAP, POLICY) == b"x" * 10
    else:
        stopped(answer, TooManyBytes)
    # The server could send more than fetch() read: the socket buffers of both sides hold some bytes.
    assert sent.bytes < CAP + 8 * 2**20


def test_fetch_stops_reading_at_the_byte_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    from urllib3.response import HTTPResponse

    read: list[int] = []
    original: Any = HTTPResponse.read

    def counting(self: HTTPResponse, *arguments: int, **options: bool) -> bytes:
        data: bytes = original(self, *arguments, **options)
        read.append(len(data))
        return data

    monkeypatch.setattr(HTTPResponse, "read", counting)

    def answer(handler: BaseHTTPRequestHandler) -> None:
        head(handler)
        handler.wfile.write(b"x" * 10 * CAP)

    stopped(answer, TooManyBytes)
    assert sum(read) <= CAP + 64 * 1024


def test_gzip_response_is_refused_and_not_decompressed() -> None:
    bomb = gzip.compress(b"\0" * 200 * CAP)

    def answer(handler: BaseHTTPRequestHandler) -> None:
        head(handler, ("Content-Encoding", "gzip"), ("Content-Length", str(len(bomb))))
        handler.wfile.write(bomb)

    before = psutil.Process().memory_info().rss
    stopped(answer, FetchError)
    assert psutil.Process().memory_info().rss - before < 30 * CAP


def test_body_shorter_than_content_length_is_an_error() -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        head(handler, ("Content-Length", "1000"))
        handler.wfile.write(b"x" * 10)

    stopped(answer, FetchError)


def test_body_of_a_redirect_response_is_not_read_into_memory() -> None:
    bomb = gzip.compress(b"\0" * 50 * CAP)
    sent = Sent()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        if handler.path == "/end":
            head(handler, ("Content-Length", "2"))
            handler.wfile.write(b"ok")
            return
        head(handler, ("Location", "/end"), ("Content-Encoding", "gzip"), status=302)
        while sent.bytes < 50 * CAP:
            sent.write(handler, bomb)

    with http_server(lambda handler: _quietly(answer, handler)) as url:
        before = psutil.Process().memory_info().rss
        assert fetch(url, CAP, POLICY) == b"ok"
        assert psutil.Process().memory_info().rss - before < 30 * CAP


def test_body_sent_byte_by_byte_over_tls_exceeds_the_total_timeout(tmp_path: Path) -> None:
    """TLS wraps the socket; the total timeout has to end the wrapped connection too."""
    pair = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair)
    with socket.create_server((IMAGE_HOST, 0)) as listener:
        threading.Thread(target=_drip, args=(context, listener), daemon=True).start()
        begin = time.monotonic()
        with pytest.raises(FetchError, match="did not deliver within 1 seconds"):
            fetch(f"https://{IMAGE_HOST}:{listener.getsockname()[1]}/", CAP, POLICY._replace(ca_file=pair), 1)
        assert time.monotonic() - begin < 3


def certificate(folder: Path) -> Path:
    """A file with a TLS certificate for IMAGE_HOST and its private key."""
    pair = folder / "pair.pem"
    name = f"subjectAltName=IP:{IMAGE_HOST}"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=upres"]
    command += ["-addext", name]
    subprocess.run([*command, "-keyout", pair, "-out", folder / "c.pem"], check=True, capture_output=True)
    pair.write_text(pair.read_text() + (folder / "c.pem").read_text())
    return pair


def _drip(context: ssl.SSLContext, listener: socket.socket) -> None:
    with suppress(OSError):
        inner, _ = listener.accept()
        with context.wrap_socket(inner, server_side=True) as secure:
            secure.recv(1000)
            secure.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            for _ in range(60):
                secure.sendall(b"x")
                time.sleep(0.1)


def test_slow_dns_resolution_exceeds_the_total_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: time.sleep(8))
    begin = time.monotonic()
    with pytest.raises(FetchError, match="did not deliver"):
        fetch("http://example.org/", CAP, POLICY, 1)
    assert time.monotonic() - begin < 3


@pytest.mark.parametrize("location", ["http://[::1", "http://[", "//[", "http://a b/", "\x01"])
def test_redirect_to_an_invalid_url_is_an_error(location: str) -> None:
    stopped(lambda handler: head(handler, ("Location", location), ("Content-Length", "0"), status=302), FetchError)


@pytest.mark.parametrize("step", [1, 0])
def test_at_most_five_redirects_are_followed(step: int) -> None:
    asked: list[str] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        asked.append(handler.path)
        number = int(handler.path.strip("/") or 0)
        head(handler, ("Location", f"/{number + step}"), ("Content-Length", "0"), status=302)

    stopped(answer, FetchError)
    assert len(asked) <= 6


def test_many_large_headers_are_an_error() -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        head(handler, *((f"X-{number}", "y" * 60_000) for number in range(500)))

    stopped(answer, FetchError)


@pytest.mark.parametrize(
    "line", [b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nxxxxx", b"\0" * 100_000, b"SSH-2.0-x\r\n"]
)
def test_invalid_http_response_gives_a_fetch_error_or_a_limited_body(line: bytes) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(line)
        handler.close_connection = True

    with http_server(answer) as url, suppress(FetchError, TooManyBytes):
        assert len(fetch(url, CAP, POLICY, 5)) <= CAP
