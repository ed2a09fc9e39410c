"""Servers of a test's own: some that answer as they are told, and a function with other settings."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import requests

from tests.chaos import images
from upres.embedded.child import Child, accepts, free_port
from upres.embedded.stack import Local

JOB = {"image_url": "https://example.org/a.png"}
IMAGE_HOST = images.HOST
"""The one private address that the worker under test may fetch from; 127.0.0.1 stays refused."""

Answer = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def http_server(answer: Answer, host: str = IMAGE_HOST) -> Iterator[str]:
    """A real HTTP server whose GETs are answered by the function; yields its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
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
    """An answer with this body."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(data)

    return answer


def function(local: Local, folder: Path, **changed: str) -> Iterator[str]:
    """A function of its own, with other settings."""
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
