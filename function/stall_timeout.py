"""The timeout for clients that read nothing of what the function sends."""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

STALLED_SECONDS = 30.0
"""A connection whose client reads nothing for this many seconds is closed. A browser reconnects and resumes."""


class PatientProtocol(HttpToolsProtocol):
    """Uvicorn's protocol, which also closes a connection whose client has stalled.

    asyncio and the kernel buffer less than 1 MiB for a stalled client, but without a timeout they would do it for ever:
    TCP keeps a connection open as long as the client acknowledges packets, even if it reads nothing.
    """

    _stalled: asyncio.TimerHandle | None = None

    def pause_writing(self) -> None:
        """The write buffer is full: start the timeout (see asyncio.Protocol)."""
        super().pause_writing()
        self._stalled = self.loop.call_later(STALLED_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """The client reads again: stop the timeout."""
        self._forget()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed: stop the timeout."""
        self._forget()
        super().connection_lost(exc)

    def _forget(self) -> None:
        if self._stalled:
            self._stalled.cancel()
            self._stalled = None
