"""One HTTP connection: uvicorn's protocol, with limits for clients that are silent, slow or endless (see limits.py)."""

import asyncio

from uvicorn._types import ASGI3Application, ASGISendCallable, ASGISendEvent
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from upres.core.errors import HeadIncomplete, HeadTooLarge, InvalidHttp, UpresError
from upres.function import descriptors, limits, problems
from upres.function.middleware import HEADERS


class PatientProtocol(HttpToolsProtocol):
    """Uvicorn's protocol, which also ends connections that cost more than limits.py allows.

    asyncio and the kernel buffer less than 1 MiB for a stalled client, but without a timeout they would do it for ever:
    TCP keeps a connection open as long as the client acknowledges packets, even if it reads nothing. The timeout of a
    request's body is in body.py.
    """

    _stalled: asyncio.TimerHandle | None = None
    _late: asyncio.TimerHandle | None = None
    _in_head = True
    """Whether the next byte belongs to the head of a request."""
    _overhead = 0
    """Bytes received since the last end of a head, byte of a body, or end of a request."""
    _reserved = False
    _refused = False
    _discarded = 0
    _answering: RequestResponseCycle | None = None
    """The request that is answered now, or was last; `cycle` is the one that was received last."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn declares it
        """A client has connected: wait for the head of its request (see asyncio.Protocol)."""
        super().connection_made(transport)
        self._reserved = descriptors.is_reserved(transport.get_extra_info("socket").fileno())
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        """Parse received bytes, in parts, so that no more than HEAD_BYTES are parsed in vain (see asyncio.Protocol)."""
        if self._refused:
            self._discard(data)
            return
        while data and not self._refused:
            room = limits.HEAD_BYTES - self._overhead
            part, data = data[:room], data[room:]
            self._overhead += len(part)
            super().data_received(part)  # sets _overhead to 0 when a head ends, or a part of a body arrives
            if self._overhead >= limits.HEAD_BYTES:
                self._refuse(HeadTooLarge(f"Send at most {limits.HEAD_BYTES // 1024} KiB of address and headers."))
        if self._in_head and (self._answering is None or self._answering.response_complete):
            self._expect_head()

    def on_message_begin(self) -> None:
        """A request begins (see httptools). Raises InvalidHttp, which ends the parsing, when too many others wait."""
        if len(self.pipeline) >= limits.PIPELINED:
            error = InvalidHttp(
                f"Send at most {limits.PIPELINED} requests on a connection before the first is answered."
            )
            self._refuse(error)
            raise error
        super().on_message_begin()
        self.scope["state"][descriptors.RESERVED] = self._reserved

    def on_headers_complete(self) -> None:
        """The head is complete: stop its timeout (see httptools)."""
        self._in_head, self._overhead = False, 0
        self._forget_late()
        super().on_headers_complete()
        if self._reserved:
            self.cycle.keep_alive = False
        if self.scope["http_version"] == "1.0":
            self.cycle.send = _without_chunks(self.cycle)  # type: ignore[method-assign, assignment]  # this request only

    def on_body(self, body: bytes) -> None:
        """A part of the body has arrived (see httptools)."""
        self._overhead = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is complete (see httptools)."""
        self._in_head, self._overhead = True, 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP."""
        self._refuse(InvalidHttp("This is not a valid HTTP/1.1 request."))

    def pause_writing(self) -> None:
        """The write buffer is full: start the timeout (see asyncio.Protocol)."""
        super().pause_writing()
        self._stalled = self.loop.call_later(limits.STALLED_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """The client reads again: stop the timeout."""
        self._forget_stalled()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed: stop the timeouts."""
        self._forget_stalled()
        self._forget_late()
        super().connection_lost(exc)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def _expect_head(self) -> None:
        """Start the timeout of the head, unless it runs."""
        if self._late is None and not self._refused:
            self._late = self.loop.call_later(limits.HEAD_SECONDS, self._head_is_late)

    def _head_is_late(self) -> None:
        self._late = None
        if self._overhead:
            self._refuse(HeadIncomplete(f"The request's head was not complete within {limits.HEAD_SECONDS:g} s."))
        else:
            self.transport.close()

    def _refuse(self, error: UpresError) -> None:
        """Answer with a problem, unless another answer has begun; discard what else the client sends, and close."""
        if self._refused:
            return
        self._refused = True
        self._forget_late()
        if self._answering and not self._answering.response_complete:
            if self._answering.response_started:
                self.transport.close()
                return
            self._answering.disconnected = True  # its answer is not sent any more
            self._answering.message_event.set()
        self.transport.write(_answer(error))
        self.transport.write_eof()
        self._late = self.loop.call_later(limits.LINGER_SECONDS, self.transport.abort)

    def _discard(self, data: bytes) -> None:
        self._discarded += len(data)
        if self._discarded > limits.LINGER_BYTES:
            self.transport.abort()

    def _forget_late(self) -> None:
        if self._late:
            self._late.cancel()
            self._late = None

    def _forget_stalled(self) -> None:
        if self._stalled:
            self._stalled.cancel()
            self._stalled = None


def _without_chunks(cycle: RequestResponseCycle) -> ASGISendCallable:
    """Make the `send` of an answer for HTTP/1.0: a body without Content-Length ends with the connection (RFC 1945)."""
    send, unmeasured = cycle.send, False

    async def send_without_chunks(message: ASGISendEvent) -> None:
        nonlocal unmeasured
        if message["type"] == "http.response.start":
            unmeasured = not any(name.lower() == b"content-length" for name, _ in message.get("headers", ()))
            if unmeasured:
                cycle.chunked_encoding = False
        elif message["type"] == "http.response.body" and unmeasured:
            cycle.expected_content_length = len(message.get("body", b""))
        await send(message)

    return send_without_chunks


def _answer(error: UpresError) -> bytes:
    """Make a whole HTTP answer with a problem, for a request that never reaches the app."""
    problem = problems.describe(error)
    body = problem.model_dump_json().encode()
    headers = {**HEADERS, "Content-Type": problems.MEDIA_TYPE, "Content-Length": str(len(body)), "Connection": "close"}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return STATUS_LINE[problem.status] + lines.encode() + b"\r\n" + body
