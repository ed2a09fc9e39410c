"""Request bodies: read within limits of bytes and seconds (see limits.py); discarded when nobody reads them."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from upres.core.errors import BodyIncomplete, BodyTooLarge, RateLimited, UnsupportedEncoding
from upres.function import limits
from upres.function.clients import ClientName

SLACK = 64 * 1024
"""Maximum bytes of a request body besides an image: field names, a long URL, a file name."""


class Bodies:
    """The bodies in memory, counted for each client: slow ones would fill it, however few are begun in a minute."""

    def __init__(self) -> None:
        self._bytes: Counter[ClientName] = Counter()

    @asynccontextmanager
    async def reading(self, request: Request, limit: int, client: ClientName | None) -> AsyncIterator[bytes]:
        """Read the body as `read` does. It counts for the client until the block ends.

        Raises what `read` raises; RateLimited when the client's bodies together have more than BODY_BYTES bytes.
        """
        counted = 0

        def count(size: int) -> None:
            nonlocal counted
            if client is None:
                return
            if self._bytes[client] + size > limits.BODY_BYTES:
                much = f"{limits.BODY_BYTES / 1e6:g} MB of request bodies"
                raise RateLimited(f"This {client.kind} may send {much} at once.", retry_after=2)
            self._bytes[client] += size
            counted += size

        try:
            yield await read(request, limit, count)
        finally:
            if client:
                self._bytes[client] -= counted
                if not self._bytes[client]:
                    del self._bytes[client]


async def read(request: Request, limit: int, count: Callable[[int], None] = lambda size: None) -> bytes:
    """Read the request body of at most `limit` bytes. `count` is called with the size of each part.

    Raises what `count` raises, UnsupportedEncoding when it is compressed, BodyTooLarge as soon as it is known to be
    larger, or BodyIncomplete when it makes no progress for BODY_SECONDS, or when the client closes the connection.
    """
    if request.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise UnsupportedEncoding("Send the body without Content-Encoding.")
    length = request.headers.get("Content-Length", "0")
    _check_size(int(length) if length.isdecimal() else 0, limit)
    body = bytearray()
    async with aclosing(request.stream()) as chunks:
        while (chunk := await _next(chunks)) is not None:
            count(len(chunk))
            body += chunk
            _check_size(len(body), limit)
    return bytes(body)


async def _next(chunks: AsyncGenerator[bytes]) -> bytes | None:
    try:
        async with asyncio.timeout(limits.BODY_SECONDS):
            return await anext(chunks, None)
    except (TimeoutError, ClientDisconnect):
        raise BodyIncomplete(f"Nothing of the request body arrived for {limits.BODY_SECONDS:g} s.") from None


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise BodyTooLarge(f"The request is larger than {limit / 1e6:.1f} MB; send a smaller image, or its image_url.")


class Lingering:
    """Middleware that reads and discards the rest of a body after an answer that came before its end.

    Such an answer says `Connection: close`, so that the client stops sending. The connection is closed when the body
    has ended, or after LINGER_BYTES or LINGER_SECONDS.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request (see ASGI)."""
        if scope["type"] != "http" or "aws.event" in scope or not _has_body(scope):
            await self._app(scope, receive, send)
            return
        body = _Unread(receive)

        async def send_and_linger(message: Message) -> None:
            if message["type"] == "http.response.start" and body.unread:
                MutableHeaders(scope=message)["Connection"] = "close"
            if message["type"] == "http.response.body" and body.unread and not message.get("more_body"):
                await send({**message, "more_body": True})
                await body.discard()
                message = {"type": "http.response.body"}
            await send(message)

        await self._app(scope, body.receive, send_and_linger)


class _Unread:
    """A request body, which knows whether its end has been received."""

    def __init__(self, receive: Receive) -> None:
        self.unread = True
        self._receive = receive

    async def receive(self) -> Message:
        """Receive the next message (see ASGI)."""
        message = await self._receive()
        self.unread = self.unread and bool(message.get("more_body"))
        return message

    async def discard(self) -> None:
        """Receive the rest of the body, at most LINGER_BYTES and for at most LINGER_SECONDS."""
        left = limits.LINGER_BYTES
        with suppress(TimeoutError):
            async with asyncio.timeout(limits.LINGER_SECONDS):
                while self.unread and left > 0:
                    left -= len((await self.receive()).get("body", b""))


def _has_body(scope: Scope) -> bool:
    """Whether the request has a body (RFC 9112, section 6.3)."""
    headers = Headers(scope=scope)
    return "Transfer-Encoding" in headers or headers.get("Content-Length", "0") != "0"
