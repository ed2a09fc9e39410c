"""Middleware for all requests: security headers, and the measurement of durations."""

import asyncio
import re
import time
from typing import TYPE_CHECKING

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from upres.core import logs
from upres.core.errors import FunctionUnavailable
from upres.function import problems

if TYPE_CHECKING:
    from upres.function.metrics import Metrics

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data: http: https:; "
    "connect-src 'self' http: https:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
"""Content-Security-Policy (W3C, level 3). It allows images and connections from all hosts, because they are at the
object store, whose address the function does not know in advance."""
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "cross-origin",
}


_REQUEST_ID = re.compile(r"[A-Za-z0-9._~:/+=@-]{1,128}")


class SafeHeaders:
    """Adds those HEADERS that an answer does not have yet; they restrict what a browser may do with the answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request (see ASGI)."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with_headers)


class Identified:
    """Repeats the id that a client or proxy gave a request, X-Request-ID, in the answer and in the log.

    An id that is longer than 128 characters, or contains others than letters, digits and -._~:/+=@, is ignored.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request (see ASGI)."""
        given = Headers(scope=scope).get("X-Request-ID", "") if scope["type"] == "http" else ""
        if not _REQUEST_ID.fullmatch(given):
            await self._app(scope, receive, send)
            return

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["X-Request-ID"] = given
            await send(message)

        logs.REQUEST_ID.set(given)
        await self._app(scope, receive, send_with_id)


class Interruptible:
    """Ends requests properly that the server cancels at its shutdown, because they last too long."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request (see ASGI)."""
        begun = False

        async def send_noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, send_noted)
        except asyncio.CancelledError:
            if begun:
                await send({"type": "http.response.body"})
                return
            error = FunctionUnavailable("This process of the function stops; try again, another one answers.")
            await problems.respond(Request(scope), error)(scope, receive, send)


class Measured:
    """Measures the seconds until each answer begins, if the app's state has `metrics`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request (see ASGI)."""
        metrics: Metrics | None = getattr(scope["app"].state, "metrics", None)
        if scope["type"] != "http" or not metrics:
            await self._app(scope, receive, send)
            return
        begin = time.perf_counter()

        async def send_measured(message: Message) -> None:
            if message["type"] == "http.response.start":
                metrics.observe(scope["method"], _route(scope), message["status"], time.perf_counter() - begin)
            await send(message)

        await self._app(scope, receive, send_measured)


def _route(scope: Scope) -> str:
    """Return the route's declared path, with " (wait)" for requests with a Prefer header; "none" without a route."""
    waits = " (wait)" if any(name == b"prefer" for name, _ in scope["headers"]) else ""
    candidates = (route for route in scope["app"].routes if route.endpoint is scope.get("endpoint"))
    return next((route.path + waits for route in candidates if route.path_regex.match(scope["path"])), "none")
