"""One slot takes one job at a time from the queue; a worker process has several, in threads.

The queue is RQ's, its worker is not used: it forks, or blocks the main thread; its leases last as long as a job's
timeout; and between pop and start it may lose a minute, or the job. What happens to a job in Redis is
core/jobs.lua.
"""

import logging
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from redis.exceptions import RedisError

from upres.core import keys, leases
from upres.core.errors import DeviceLost, JobRefused
from upres.core.leases import Lease
from upres.core.logs import JobLog
from upres.core.queue import connect, connect_quickly, read_message
from upres.core.settings import Settings
from upres.worker import job
from upres.worker.report import fail

log = logging.getLogger("upres.worker")

LOOK_SECONDS = 1.0
"""How long a slot waits for a job before it looks whether it should stop."""
MOST_FAILURES = 5
"""After so many the pause between attempts grows no more: three seconds."""
PATIENCE_SECONDS = LOOK_SECONDS + 4
"""A Redis that says nothing for so long is not there."""


class InFlightJob:
    """A job in hand, and until when (time.monotonic) it may run."""

    def __init__(self, lease: Lease) -> None:
        self.lease = lease
        self.until = time.monotonic() + min(keys.JOB_SECONDS, lease.seconds_left)
        self.failed_at: float | None = None
        """When it was told that its time is up."""


class InFlightJobs:
    """The jobs that this process has in hand, and whether it takes more."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._acquiring = 0
        self._jobs: set[InFlightJob] = set()
        self.closed = False

    @contextmanager
    def acquiring(self) -> Iterator[None]:
        """Wait for a job, and take it, inside."""
        with self._changed:
            self._acquiring += 1
        try:
            yield
        finally:
            with self._changed:
                self._acquiring -= 1
                self._changed.notify_all()

    def add(self, lease: Lease) -> InFlightJob:
        """Have a job in hand; then it must be put down."""
        taken = InFlightJob(lease)
        with self._changed:
            self._jobs.add(taken)
        return taken

    def remove(self, taken: InFlightJob) -> None:
        """Have no more to do with a job."""
        with self._changed:
            self._jobs.discard(taken)

    def current(self) -> list[InFlightJob]:
        """The jobs in hand now."""
        with self._changed:
            return list(self._jobs)

    def close(self) -> None:
        """Take no more jobs; a slot that waits for one puts it back."""
        self.closed = True

    def wait_idle(self, seconds: float | None = None) -> None:
        """Return when no slot waits for a job any more, after `close`, or when the time is up."""
        with self._changed:
            self._changed.wait_for(lambda: not self._acquiring, seconds)


class Slot(threading.Thread):
    """Takes jobs until the in_flight are closed; the job in hand is finished."""

    def __init__(self, name: str, settings: Settings, in_flight: InFlightJobs, parts: job.Parts) -> None:
        super().__init__(name=name, daemon=True)
        self._waiting = connect_quickly(settings, PATIENCE_SECONDS)
        self._connection = connect(settings)
        self._in_flight = in_flight
        self._parts = parts

    def run(self) -> None:
        """Take jobs."""
        failures = 0
        while not self._in_flight.closed:
            try:
                taken = self._take()
                failures = 0
                if taken:
                    self._work(taken)
            except RedisError as error:
                failures = min(failures + 1, MOST_FAILURES)
                log.warning("%s: Redis does not answer (%s); trying on", self.name, error)
                time.sleep(random.uniform(0.1, 0.1 * 2**failures))
            except Exception:
                log.exception("%s: a job was dropped; its lease will run out", self.name)

    def _take(self) -> InFlightJob | None:
        """The next job, if one comes soon."""
        with self._in_flight.acquiring():
            job_id = leases.pop(self._waiting, LOOK_SECONDS)
            if job_id and self._in_flight.closed:
                leases.put_back(self._waiting, job_id)
                return None
            lease = leases.take(self._waiting, job_id) if job_id else None
            return self._in_flight.add(lease) if lease else None

    def _work(self, taken: InFlightJob) -> None:
        lease = taken.lease
        try:
            if lease.seconds_left <= 0:
                leases.expire(self._connection, lease.job_id)
            else:
                job.run(self._parts, read_message(lease.job_id, lease.record), lease)
        except JobRefused as error:
            JobLog(log, lease.job_id).error("%s", error)
            fail(self._connection, lease, error, dead=True)
        except DeviceLost:
            self._in_flight.close()
            self._in_flight.wait_idle()  # so that no other slot of this process takes the job again
            JobLog(log, lease.job_id).warning("goes back into the queue", extra={"event": "requeued"})
            leases.give_back(self._connection, lease, "device_lost")
        finally:
            self._in_flight.remove(taken)
