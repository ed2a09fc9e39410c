"""Request bodies: read within limits of bytes and seconds (see limits.py); discarded when nobody reads them."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager, suppress

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from upres.core.errors import BodyIncomplete, BodyTooLarge, FunctionUnavailable, RateLimited, UnsupportedEncoding
from upres.function import limits
from upres.function.clients import ClientName
from upres.function.gzip_body import Gunzip
from upres.function.json_body import JsonBody
from upres.function.threads import in_thread

SLACK = 64 * 1024
"""Maximum bytes of a request body besides an image: field names, a long URL, a file name."""
INLINE = 4096
"""Most bytes that are taken apart in the event loop: 64 KiB of quotation marks would stop it for 0.1 s."""
BASE64 = 1.4
"""Maximum size of an image in base64, relative to its file: a third more, and a little for line breaks."""


class Bodies:
    """The bodies that a process has in memory, counted together and for each client: slow ones would fill it."""

    def __init__(self) -> None:
        self._bytes: Counter[ClientName | None] = Counter()

    @contextmanager
    def share(self, client: ClientName | None) -> Iterator["Share"]:
        """Yield what one body may hold; it is given back when the block ends."""
        share = Share(self._bytes, client)
        try:
            yield share
        finally:
            share.hold(0)


class Share:
    """What one body holds of the memory for all bodies."""

    def __init__(self, all_bytes: "Counter[ClientName | None]", client: ClientName | None) -> None:
        self._all, self._client, self._held = all_bytes, client, 0

    def hold(self, size: int) -> None:
        """Note how many bytes the body has in memory now. Raises what `expect` raises, and notes nothing then."""
        more = size - self._held
        self.expect(more)
        self._all[self._client] += more
        if not self._all[self._client]:
            del self._all[self._client]
        self._held = size

    def expect(self, more: int) -> None:
        """Check that the body may hold so many bytes more.

        Raises RateLimited when the client's bodies would have more than BODY_BYTES together, or FunctionUnavailable
        when those of all clients would have more than BODIES_BYTES. A body that is alone may have any size, since
        UPRES_MAX_INPUT_MEGABYTES may allow larger ones.
        """
        if more <= 0:
            return
        size = self._held + more
        if self._client and size < self._all[self._client] + more > limits.BODY_BYTES:
            much = f"{limits.BODY_BYTES / 1e6:g} MB of request bodies"
            raise RateLimited(f"This {self._client.kind} may send {much} at once.", retry_after=2)
        if size < self._all.total() + more > limits.BODIES_BYTES:
            raise FunctionUnavailable("Too many large requests are being sent at once; try again in a few seconds.")


async def read(request: Request, limit: int) -> bytes:
    """Read the request body of at most `limit` bytes. Raises what `pieces` raises."""
    async with aclosing(pieces(request, limit)) as parts:
        return b"".join([part async for part in parts])


async def take(request: Request, limit: int, share: Share, body: JsonBody) -> bytes:
    """Let `body` take the request body of at most `limit` bytes while it comes; return the document without the image.

    Raises what `pieces`, `share` and `body` raise; before anything is read when the size that the client states is too
    large, or when there is no room for it.
    """
    share.expect(int(declared(request, limit) / BASE64))
    waiting = bytearray()
    async with aclosing(pieces(request, limit)) as parts:
        async for part in parts:
            waiting += part
            share.hold(body.held + len(waiting))
            if len(waiting) >= limits.BODY_PIECE:
                await in_thread(request, body.feed, bytes(waiting))
                waiting.clear()
                share.hold(body.held)

    def finished() -> bytes:
        body.feed(bytes(waiting))
        return body.finish()

    # A small rest is taken apart sooner than a thread is asked to do it.
    rest = await in_thread(request, finished) if len(waiting) > INLINE else finished()
    share.hold(body.held)
    return rest


def declared(request: Request, limit: int) -> int:
    """Return the size of the body that the client states, or 0; if it is compressed, as it is sent.

    Raises UnsupportedEncoding or BodyTooLarge.
    """
    if _encoding(request) not in ("identity", "gzip"):
        raise UnsupportedEncoding("Send the body without Content-Encoding, or with gzip.")
    length = request.headers.get("Content-Length", "0")
    size = int(length) if length.isdecimal() else 0
    _check_size(size, limit)
    return size


async def pieces(request: Request, limit: int) -> AsyncGenerator[bytes]:
    """Yield the parts of a request body of at most `limit` bytes as they come.

    What is compressed with gzip is uncompressed. Raises UnsupportedEncoding for any other compression,
    InvalidEncoding, BodyTooLarge as soon as it is known to be larger, or BodyIncomplete when it makes no progress for
    BODY_SECONDS, or when the client closes the connection.
    """
    declared(request, limit)
    size, gunzip = 0, Gunzip() if _encoding(request) == "gzip" else None
    async with aclosing(request.stream()) as chunks:
        while (chunk := await _next(chunks)) is not None:
            for piece in gunzip.pieces(chunk) if gunzip else (chunk,):
                size += len(piece)
                _check_size(size, limit)
                yield piece
                if gunzip:
                    await asyncio.sleep(0)  # a body of kilobytes may hold megabytes: let other requests go on
    if gunzip:
        gunzip.end()


def _encoding(request: Request) -> str:
    return request.headers.get("Content-Encoding", "identity").strip().lower()


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
