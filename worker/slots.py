"""One slot takes one job at a time from the queue; a worker process has several, in threads.

The queue is RQ's, its worker is not used: it forks, or blocks the main thread; its leases last as long as a job's
timeout; and between pop and start it may lose a minute, or the job. What happens to a job in Redis is
core/jobs.lua.
"""

import logging
import random
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from redis import Redis
from redis.exceptions import RedisError

from core import events, keys, leases
from core.errors import DeviceLost, JobRefused
from core.leases import Lease
from core.queue import connect, connect_quickly, read_message
from core.schema import JobMessage, now
from core.settings import Settings
from worker import job

log = logging.getLogger("upres.worker")

LOOK_SECONDS = 1.0
"""How long a slot waits for a job before it looks whether it should stop."""
PATIENCE_SECONDS = LOOK_SECONDS + 4
"""A Redis that says nothing for so long is not there."""


class Hold(NamedTuple):
    """A job in hand: what was taken, what it asks for, and until when (time.monotonic) it may run."""

    lease: Lease
    message: JobMessage
    until: float


class Hands:
    """The jobs that this process has in hand, and whether it takes more."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._open = True
        self._waiting = 0
        self._held: dict[str, Hold] = {}

    @property
    def closed(self) -> bool:
        """Whether no more jobs are taken."""
        return not self._open

    @contextmanager
    def reach(self) -> Iterator[bool]:
        """Wait for a job inside; False once the hands are closed."""
        with self._changed:
            may = self._open
            self._waiting += may
        try:
            yield may
        finally:
            with self._changed:
                self._waiting -= may
                self._changed.notify_all()

    @contextmanager
    def hold(self, lease: Lease, message: JobMessage) -> Iterator[None]:
        """Have a job in hand."""
        seconds = min(keys.JOB_SECONDS, (message.deadline - now()).total_seconds())
        self._held[lease.job_id] = Hold(lease, message, time.monotonic() + seconds)
        try:
            yield
        finally:
            del self._held[lease.job_id]

    def held(self) -> list[Hold]:
        """The jobs in hand now."""
        return list(self._held.values())

    def close(self) -> None:
        """Take no more jobs; returns when no slot waits for one any more."""
        with self._changed:
            self._open = False
            self._changed.wait_for(lambda: not self._waiting)


class Slot(threading.Thread):
    """Takes jobs until the hands are closed; the job in hand is finished."""

    def __init__(self, name: str, settings: Settings, hands: Hands, parts: job.Parts) -> None:
        super().__init__(name=name, daemon=True)
        self._waiting = connect_quickly(settings, PATIENCE_SECONDS)
        self._connection = connect(settings)
        self._hands = hands
        self._parts = parts

    def run(self) -> None:
        """Take jobs."""
        failures = 0
        while True:
            try:
                with self._hands.reach() as may:
                    if not may:
                        return
                    job_id = leases.pop(self._waiting, LOOK_SECONDS)
                if job_id:
                    self._work(job_id)
                failures = 0
            except RedisError as error:
                failures += 1
                log.warning("%s: Redis does not answer (%s); trying on", self.name, error)
                time.sleep(random.uniform(0.1, min(2, 0.2 * 2**failures)))  # noqa: S311
            except Exception:
                log.exception("%s: a job was dropped; its lease will run out", self.name)

    def _work(self, job_id: str) -> None:
        lease = leases.take(self._connection, job_id, uuid.uuid4().hex)
        if lease is None:
            return
        try:
            message = read_message(lease.job_id, lease.record)
        except JobRefused as error:
            _refuse(self._connection, lease, error)
            return
        with self._hands.hold(lease, message):
            try:
                job.run(self._parts, message, lease)
            except DeviceLost:
                self._hands.close()  # first, so that no other slot of this process takes the job again
                leases.give_back(self._connection, lease, "device_lost")


def _refuse(connection: Redis, lease: Lease, error: JobRefused) -> None:
    log.error("job %s: %s", lease.job_id, error)
    events.append(connection, leases.failure(lease.job_id, error), lease.attempt, dead=True)
