"""A proxy before the real function or object store, which refuses some requests as others do."""

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

REFUSAL = b'<?xml version="1.0"?><Error><Code>ExpiredToken</Code><Message>The token has expired.</Message></Error>'
TOO_LARGE = b"<html><head><title>413 Request Entity Too Large</title></head><body>nginx</body></html>"
OWN_HEADERS = ("content-length", "transfer-encoding", "connection", "date", "server")
"""Headers that the gate's own answer has."""


class Gate(ThreadingHTTPServer):
    """Forwards requests to the server at `target` (host:port).

    While `refuses` is true it refuses all, as a store does with an expired token. Bodies of more than `largest_body`
    bytes are refused as nginx does. Of `cut_every` answers with a body one ends after its first half (FIN).
    """

    def __init__(self, target: str) -> None:
        self.target, self.refuses = target, False
        self.largest_body = 1 << 40
        self.cut_every = 0
        self.refused = self.cut = self.answers = 0
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __getattr__(self, name: str) -> Any:
        """All methods (do_GET, do_PUT, …) are forwarded in the same way."""
        if name.startswith("do_"):
            return self._answer
        raise AttributeError(name)

    def _answer(self) -> None:
        gate = self.server
        assert isinstance(gate, Gate)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if gate.refuses:
            gate.refused += 1
            self._send(403, {"Content-Type": "application/xml"}, REFUSAL)
            return
        if len(body) > gate.largest_body:
            self._send(413, {"Content-Type": "text/html"}, TOO_LARGE)
            return
        connection = http.client.HTTPConnection(gate.target, timeout=20)
        connection.request(self.command, self.path, body, dict(self.headers))  # Host is signed, and so it is kept
        response = connection.getresponse()
        data = response.read()
        connection.close()
        self._send(response.status, dict(response.getheaders()), data)

    def _send(self, status: int, headers: dict[str, str], data: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in OWN_HEADERS:
                self.send_header(name, value)
        self.send_header("Content-Length", headers.get("Content-Length") or str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(self._cut(data) if status == 200 else data)

    def _cut(self, data: bytes) -> bytes:
        gate = self.server
        assert isinstance(gate, Gate)
        gate.answers += bool(data)
        if not data or not gate.cut_every or gate.answers % gate.cut_every:
            return data
        gate.cut += 1
        self.close_connection = True
        return data[: len(data) // 2]

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextmanager
def before(url: str | None) -> Iterator[Gate]:
    """Stand before the server at this URL while the block runs."""
    with Gate(urlsplit(url or "").netloc) as gate:
        threading.Thread(target=gate.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield gate
        gate.shutdown()
