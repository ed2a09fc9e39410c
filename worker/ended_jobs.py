"""A thread that notices within half a second when a job that is being fetched has ended, and interrupts the fetch.

Between two events a worker does not learn that its job was cancelled. A fetch can last ten seconds, if its server wants
that, so without this a client could occupy slots with jobs that it has cancelled.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from redis.exceptions import RedisError

from upres.core import leases
from upres.core.leases import Lease
from upres.core.queue import connect_with_timeout
from upres.core.settings import Settings

CHECK_SECONDS = 0.5
"""Interval in seconds at which the jobs that are being fetched are looked up."""


class Interrupt:
    """Ends what a slot waits for, from another thread."""

    def __init__(self) -> None:
        self.is_set = False
        self._lock = threading.Lock()
        self._act: Callable[[], None] | None = None

    def attach(self, act: Callable[[], None]) -> None:
        """Call `act` when the interrupt is set, or now if it is."""
        with self._lock:
            self._act = act
        if self.is_set:
            act()

    def set(self) -> None:
        """Interrupt what is attached, and what will be."""
        self.is_set = True
        with self._lock:
            act = self._act
        if act:
            act()


class EndedJobs(threading.Thread):
    """Looks up the jobs in `watch` blocks; while there are none it sends no requests. It ends with the process."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(name="ended-jobs", daemon=True)
        self._connection = connect_with_timeout(settings)
        self._changed = threading.Condition()
        self._watched: list[tuple[Lease, Interrupt]] = []

    @contextmanager
    def watch(self, lease: Lease) -> Iterator[Interrupt]:
        """Give an interrupt for the block, which is set when this worker does not hold the job any more."""
        entry = lease, Interrupt()
        with self._changed:
            self._watched.append(entry)
            self._changed.notify()
        try:
            yield entry[1]
        finally:
            with self._changed:
                self._watched.remove(entry)

    def run(self) -> None:
        """Look up the watched jobs, again and again. Without an answer of Redis they go on."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._watched)
            time.sleep(CHECK_SECONDS)
            with suppress(RedisError):  # the heartbeat logs it
                self.check()

    def check(self) -> None:
        """Interrupt the watched jobs that this worker does not hold any more. Raises redis-py's errors."""
        with self._changed:
            watched = list(self._watched)
        lost = leases.renew(self._connection, [lease for lease, _ in watched])
        for lease, interrupt in watched:
            if lease.job_id in lost:
                interrupt.set()
