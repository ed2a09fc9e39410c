"""Logs an outage at its beginning, once a minute while it lasts, and at its end, however many threads notice it."""

import logging
import threading
import time

log = logging.getLogger("upres.worker")

REPEAT_SECONDS = 60


class OutageLog:
    """The log of the outages of one service. Safe from all threads."""

    def __init__(self, service: str) -> None:
        self._service = service
        self._lock = threading.Lock()
        self._since: float | None = None
        self._logged = 0.0

    def failed(self, error: Exception) -> None:
        """A request failed."""
        now = time.monotonic()
        with self._lock:
            if self._since is None:
                self._since = self._logged = now
                log.warning("%s is unavailable (%s); trying again", self._service, error, extra={"event": "outage"})
            elif now - self._logged >= REPEAT_SECONDS:
                self._logged = now
                log.warning("%s has been unavailable for %.0f s (%s)", self._service, now - self._since, error)

    def over(self) -> None:
        """A request of the thread that asks regularly succeeded."""
        with self._lock:
            if self._since is not None:
                took = time.monotonic() - self._since
                log.info("%s is available again after %.1f s", self._service, took, extra={"event": "outage_over"})
            self._since = None
