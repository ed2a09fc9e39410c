"""How long the function waits for somebody who reads nothing of what is sent."""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

STALLED_SECONDS = 30.0
"""Whoever took nothing for so long is not there any more; a browser comes back and goes on where it was."""


class PatientProtocol(HttpToolsProtocol):
    """Drops a connection whose reader has stalled.

    A stalled reader costs what asyncio and the kernel hold back for it, less than a MiB, but for ever: TCP itself
    keeps a connection alive whose other end acknowledges and takes nothing.
    """

    _stalled: asyncio.TimerHandle | None = None

    def pause_writing(self) -> None:
        """The reader does not keep up (see asyncio.Protocol)."""
        super().pause_writing()
        self._stalled = self.loop.call_later(STALLED_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """It does again."""
        self._forget()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self._forget()
        super().connection_lost(exc)

    def _forget(self) -> None:
        if self._stalled:
            self._stalled.cancel()
            self._stalled = None
