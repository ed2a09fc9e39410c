"""Servers for a single test: HTTP servers with given responses, and a function with changed settings."""

import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import requests

from tests.chaos import images
from upres.embedded.child import Child, accepts, free_port
from upres.embedded.stack import Local

JOB = {"image_url": "https://example.org/a.png"}
IMAGE_HOST = images.HOST
"""The only private address that the tested worker may fetch images from; it still refuses 127.0.0.1."""

Answer = Callable[[BaseHTTPRequestHandler], None]


class Patched(NamedTuple):
    """A separate function: its port on 127.0.0.1 and its process."""

    port: int
    child: Child

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)


@contextmanager
def http_server(answer: Answer, host: str = IMAGE_HOST) -> Iterator[str]:
    """A real HTTP server that calls `answer` for each request; yields its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def do_POST(self) -> None:
            answer(self)

        def do_PUT(self) -> None:
            answer(self)

        def do_DELETE(self) -> None:
            answer(self)

        def do_OPTIONS(self) -> None:
            answer(self)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer((host, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://{host}:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def body(data: bytes, status: int = 200, headers: dict[str, str] | None = None) -> Answer:
    """A function for http_server that responds with this body, status and headers."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(data)

    return answer


def function(local: Local, folder: Path, **changed: str) -> Iterator[str]:
    """Run a separate function with changed environment variables; yields its URL."""
    port = free_port()
    command = [sys.executable, "-m", "upres.function", "--port", str(port)]
    child = Child("function", command, {**local.environment, **changed}, folder)
    child.wait_ready(lambda: accepts(port))
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        child.stop()


def post_job(url: str, text: str | None, body: Any = JOB, **headers: str) -> requests.Response:
    authorization = {"Authorization": f"Bearer {text}"} if text is not None else {}
    return requests.post(f"{url}/v1/jobs", json=body, headers={**authorization, **headers}, timeout=20)


@contextmanager
def patched_function(
    local: Local, folder: Path, constants: dict[str, float], *options: str, before: str = "", **changed: str
) -> Iterator[Patched]:
    """Run a separate function with other limits (constants of function/limits.py) and environment variables.

    `before` is code that it runs at first.
    """
    port = free_port()
    code = f"""
{before}
import sys
from upres.function import limits
from upres.function.__main__ import main
for name, value in {constants!r}.items():
    assert hasattr(limits, name)
    setattr(limits, name, value)
sys.exit(main())
"""
    command = [sys.executable, "-c", code, "--port", str(port), *options]
    child = Child("patched", command, {**local.environment, **changed}, folder)
    try:
        child.wait_ready(lambda: accepts(port))
        yield Patched(port, child)
    finally:
        child.stop()
