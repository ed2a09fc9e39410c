"""The HTTP endpoints of a worker for its operator: /healthz, /readyz and /metrics, on UPRES_METRICS_PORT (IPv4, IPv6).

/healthz is the liveness probe: 503 when the worker hangs and has to be restarted, else 200, also while it loads a
model. /readyz is the readiness probe: 200 while the worker takes jobs, else 503; a worker that cannot use its object
store is `unwell`. /metrics is for Prometheus.
"""

import json
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, Self

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from upres.core.errors import SettingsError
from upres.core.listening import any_address
from upres.worker.metrics import REGISTRY

State = Literal["loading", "ready", "stopping", "stuck"]

LOADING_SECONDS = 900
"""A worker that loads for more seconds hangs: 15 minutes are enough to download and compile gigabytes of weights."""


class Health:
    """The state of a worker.

    `hangs` is a function that says what hangs, in a few words, or returns None; `fault` one that says why a worker that
    is ready takes no jobs for now.
    """

    def __init__(self) -> None:
        self.hangs: Callable[[], str | None] = lambda: None
        self.fault: Callable[[], str | None] = lambda: None
        self._state: State = "loading"
        self._since = time.monotonic()

    def enter(self, state: State) -> None:
        """Set the state, and remember when."""
        self._state, self._since = state, time.monotonic()

    def report(self) -> dict[str, Any]:
        """Return the `status`, the `seconds` since the state was set, and in `detail` the reason if it is stuck."""
        seconds = time.monotonic() - self._since
        trouble = self.hangs()
        if self._state == "loading" and seconds > LOADING_SECONDS:
            trouble = f"loading has taken longer than {LOADING_SECONDS} seconds"
        fault = self.fault() if self._state == "ready" else None
        status = "stuck" if trouble else "unwell" if fault else self._state
        report = {"status": status, "seconds": round(seconds, 1)}
        return {**report, "detail": trouble or fault} if trouble or fault else report


class Probes:
    """An HTTP server that runs during the block; with port None it does nothing.

    Raises SettingsError when the port cannot be used.
    """

    def __init__(self, port: int | None, health: Health) -> None:
        self._server: ThreadingHTTPServer | None = None
        if port is not None:
            try:
                self._server = _Server((any_address(), port), _handler(health))
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


class _Server(ThreadingHTTPServer):
    """A server that listens on an IPv4 or IPv6 address."""

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, handler)


def _handler(health: Health) -> type[BaseHTTPRequestHandler]:
    """Make the class that answers requests."""

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
            """Log nothing, because probes are requested every few seconds."""

    return Handler
