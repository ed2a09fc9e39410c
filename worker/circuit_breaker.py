"""A circuit breaker (Nygard 2007, «Release It!») for faults that are this worker's own, and not a job's.

A worker whose object store refuses it, or that cannot load a model, would otherwise take one job after the other from
the queue and fail them all, beside workers that are well.
"""

import logging
import threading
import time

log = logging.getLogger("upres.worker")

FIRST_PAUSE_SECONDS = 1.0
"""Pause after the first fault in seconds; it doubles with each further one."""
LONGEST_PAUSE_SECONDS = 60.0


class CircuitBreaker:
    """Says whether slots may take jobs. After a fault they pause; then one of them tries a single job. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults = 0
        self._until = 0.0
        self._trial = False
        self.fault: str | None = None
        """The latest fault, a sentence, until a job succeeds; None while the worker is well."""

    @property
    def is_open(self) -> bool:
        """Whether the worker pauses now."""
        return time.monotonic() < self._until

    def admits(self) -> bool:
        """Whether the calling slot may take a job; it must call `leave` afterwards. During a trial only one may."""
        with self._lock:
            if self.fault is None:
                return True
            if self._trial or time.monotonic() < self._until:
                return False
            self._trial = True
            return True

    def leave(self) -> None:
        """The slot has ended its job, or got none."""
        with self._lock:
            self._trial = False

    def trip(self, fault: str) -> None:
        """A job met a fault of this worker: pause. Logs the first one."""
        with self._lock:
            if time.monotonic() < self._until:
                return  # a job that began before the pause
            if self.fault is None:
                log.warning("takes no jobs for now: %s", fault, extra={"event": "unwell"})
            self.fault = fault
            self._until = time.monotonic() + min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0**self._faults)
            self._faults += 1

    def close(self) -> None:
        """A job succeeded: the worker is well."""
        with self._lock:
            if self.fault is not None:
                log.info("takes jobs again", extra={"event": "well"})
            self.fault, self._faults, self._until = None, 0, 0.0
