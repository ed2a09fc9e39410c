"""What a worker says to those who keep it running, on a port of its own: /healthz, /readyz and /metrics.

Whoever restarts workers asks /healthz: it is 503 only when one will not get on by itself. One that loads its model is
well, for as long as that may take. Whoever waits for workers asks /readyz: 200 while it takes jobs.
"""

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, Self

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from upres.core.errors import SettingsError
from upres.worker.metrics import REGISTRY

State = Literal["loading", "ready", "stopping", "stuck"]

LOADING_SECONDS = 900
"""Gigabytes of weights come within a quarter of an hour, and are compiled, or something hangs."""


class Health:
    """How a worker is. `hangs` tells what does not get on, if anything."""

    def __init__(self) -> None:
        self.hangs: Callable[[], str | None] = lambda: None
        self._state: State = "loading"
        self._since = time.monotonic()

    def enter(self, state: State) -> None:
        """From now on it is so."""
        self._state, self._since = state, time.monotonic()

    def report(self) -> dict[str, Any]:
        """The state, since how many seconds, and what is wrong if anything is."""
        seconds = time.monotonic() - self._since
        trouble = self.hangs()
        if self._state == "loading" and seconds > LOADING_SECONDS:
            trouble = f"loading has taken longer than {LOADING_SECONDS} seconds"
        report = {"status": "stuck" if trouble else self._state, "seconds": round(seconds, 1)}
        return {**report, "detail": trouble} if trouble else report


class Probes:
    """Answers on a port, from when the block is entered until it is left; without a port it does nothing."""

    def __init__(self, port: int | None, health: Health) -> None:
        self._server: ThreadingHTTPServer | None = None
        if port is not None:
            try:
                self._server = ThreadingHTTPServer(("", port), _handler(health))
            except OSError as error:
                reason = f"UPRES_METRICS_PORT: {port} cannot be listened on ({error.strerror})"
                raise SettingsError(reason) from None

    def __enter__(self) -> Self:
        if self._server:
            threading.Thread(target=self._server.serve_forever, name="probes", daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._server:
            self._server.shutdown()
            self._server.server_close()


def _handler(health: Health) -> type[BaseHTTPRequestHandler]:
    def healthz() -> tuple[int, str, bytes]:
        report = health.report()
        return 503 if report["status"] == "stuck" else 200, "application/json", json.dumps(report).encode()

    def readyz() -> tuple[int, str, bytes]:
        report = health.report()
        return 200 if report["status"] == "ready" else 503, "application/json", json.dumps(report).encode()

    def metrics() -> tuple[int, str, bytes]:
        return 200, CONTENT_TYPE_LATEST, generate_latest(REGISTRY)

    answers = {"/healthz": healthz, "/readyz": readyz, "/metrics": metrics}

    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            found = answers.get(self.path)
            status, kind, body = found() if found else (404, "text/plain", b"/healthz, /readyz, /metrics\n")
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            """Whoever looks every other second is not news."""

    return Handler
