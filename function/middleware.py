"""What is around all requests: headers that every answer has, and a clock."""

import time
from typing import TYPE_CHECKING

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

if TYPE_CHECKING:
    from upres.function.metrics import Metrics

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data: http: https:; "
    "connect-src 'self' http: https:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
"""Content-Security-Policy (W3C, level 3). Images and uploads are at the object store, whose address the function
does not know in advance."""
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "cross-origin",
}


class SafeHeaders:
    """Adds HEADERS to each answer that does not have its own, so that no browser makes more of it than was meant."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""

        async def send_more(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_more)


class Measured:
    """Measures each request, where there are `metrics` in the app's state."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        metrics: Metrics | None = getattr(scope["app"].state, "metrics", None)
        if scope["type"] != "http" or not metrics:
            await self._app(scope, receive, send)
            return
        begin = time.perf_counter()

        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                labels = (scope["method"], _route(scope), message["status"])
                metrics.seconds.labels(*labels).observe(time.perf_counter() - begin)
            await send(message)

        await self._app(scope, receive, send_on)


def _route(scope: Scope) -> str:
    """The path as it was declared; those that nobody declared are all the same. Who asked to wait is told apart."""
    waits = " (wait)" if any(name == b"prefer" for name, _ in scope["headers"]) else ""
    candidates = (route for route in scope["app"].routes if route.endpoint is scope.get("endpoint"))
    return next((route.path + waits for route in candidates if route.path_regex.match(scope["path"])), "none")
