"""A certificate authority of a test, and a TLS server with a certificate of it."""

import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.support.servers import IMAGE_HOST, Answer

EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


class Authority:
    """A certificate authority; `file` is its certificate in PEM."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.file = folder, folder / "ca.pem"
        usage = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
        self._openssl(*usage, "-subj", "/CN=test authority", "-keyout", folder / "ca.key", "-out", self.file)

    def issue(self, names: str, days: int = 2) -> Path:
        """Make a certificate for names such as `DNS:example.org`; return a file with it and its private key."""
        key, certificate, pair = (self._folder / name for name in ("server.key", "server.pem", "pair.pem"))
        signer = ("-CA", self.file, "-CAkey", self._folder / "ca.key", "-addext", "basicConstraints=critical,CA:FALSE")
        identity = ("-subj", "/CN=server", "-addext", f"subjectAltName={names}")
        self._openssl(*signer, *identity, "-days", str(days), "-keyout", key, "-out", certificate)
        pair.write_text(key.read_text() + certificate.read_text())
        return pair

    def _openssl(self, *arguments: str | Path) -> None:
        subprocess.run(["openssl", "req", "-x509", *EC, *arguments], check=True, capture_output=True)


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing: a handshake that fails is what some tests want."""


@contextmanager
def tls_server(pair: Path, answer: Answer, host: str = IMAGE_HOST) -> Iterator[tuple[int, list[str | None]]]:
    """An HTTPS server that calls `answer` for each request; yields its port, and the names that SNI sent."""
    asked: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def do_POST(self) -> None:
            answer(self)

        def do_PUT(self) -> None:
            answer(self)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair)
    context.sni_callback = lambda sock, name, _: asked.append(name)
    with _Server((host, 0), Handler) as server:
        # The handshake is made by the handler's thread: one that fails must not end the server.
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_address[1], asked
        finally:
            server.shutdown()
            thread.join()
