"""One slot runs one job at a time; a worker process has several slots, in threads.

The queue is RQ's. RQ's own workers are not used: they fork for each job or block the main thread, their leases last as
long as a job's timeout, and a job whose worker dies between pop and start waits for a minute or is lost. The changes of
a job in Redis are in core/jobs.lua.
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
from upres.core.queue import connect, connect_with_timeout, read_message
from upres.core.settings import Settings
from upres.worker import job as pipeline
from upres.worker.context import WorkerContext
from upres.worker.report import publish_failure

log = logging.getLogger("upres.worker")

POP_SECONDS = 1.0
"""Seconds that a slot waits for a job before it checks whether it should stop."""
REDIS_TIMEOUT_SECONDS = POP_SECONDS + 4
"""Timeout in seconds of the connection that pops jobs: longer than a pop may wait for a job."""
MAX_FAILURES = 5
"""Number of failures after which the pause between retries does not grow any more; it is then at most 3.2 seconds."""


class InFlightJob:
    """A job that this process works on, and the time (`until`, of time.monotonic) when its time is up."""

    def __init__(self, lease: Lease) -> None:
        self.lease = lease
        self.until = time.monotonic() + min(keys.JOB_SECONDS, lease.seconds_left)
        self.failed_at: float | None = None
        """Time (of time.monotonic) at which its failure was published because its time was up; else None."""


class InFlightJobs:
    """The jobs that this process works on. When `closed` is true, it takes no more. Safe from all threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._acquiring = 0
        self._jobs: set[InFlightJob] = set()
        self.closed = False

    @contextmanager
    def acquiring(self) -> Iterator[None]:
        """Mark the block in which a slot waits for a job and takes it. `wait_idle` waits for the end of such blocks."""
        with self._changed:
            self._acquiring += 1
        try:
            yield
        finally:
            with self._changed:
                self._acquiring -= 1
                self._changed.notify_all()

    def add(self, lease: Lease) -> InFlightJob:
        """Add a job that was taken. The caller must call `remove` when it ends."""
        job = InFlightJob(lease)
        with self._changed:
            self._jobs.add(job)
        return job

    def remove(self, job: InFlightJob) -> None:
        """Remove a job that has ended, or that this process has given back."""
        with self._changed:
            self._jobs.discard(job)

    def current(self) -> list[InFlightJob]:
        """Return the jobs that the process works on now."""
        with self._changed:
            return list(self._jobs)

    def close(self) -> None:
        """Take no more jobs. A slot that waits for a job puts it back when it comes."""
        self.closed = True

    def wait_idle(self, seconds: float | None = None) -> None:
        """Wait until no slot is acquiring a job any more, for at most `seconds`. Call `close` first."""
        with self._changed:
            self._changed.wait_for(lambda: not self._acquiring, seconds)


class Slot(threading.Thread):
    """A thread that runs one job after the other until `in_flight` is closed; it finishes the one it has."""

    def __init__(self, name: str, settings: Settings, in_flight: InFlightJobs, context: WorkerContext) -> None:
        super().__init__(name=name, daemon=True)
        self._pop_connection = connect_with_timeout(settings, REDIS_TIMEOUT_SECONDS)
        self._connection = connect(settings)
        self._in_flight = in_flight
        self._worker_context = context

    def run(self) -> None:
        """Take jobs and run them. Errors of Redis are logged and retried with backoff."""
        failures = 0
        while not self._in_flight.closed:
            try:
                job = self._take()
                failures = 0
                if job:
                    self._work(job)
            except RedisError as error:
                failures = min(failures + 1, MAX_FAILURES)
                log.warning("%s: Redis does not answer (%s); trying again", self.name, error)
                time.sleep(random.uniform(0.1, 0.1 * 2**failures))
            except Exception:
                log.exception("%s: a job was dropped; its lease will run out", self.name)

    def _take(self) -> InFlightJob | None:
        """Pop and take the next job; None when none comes within POP_SECONDS, or when the job cannot be taken."""
        with self._in_flight.acquiring():
            job_id = leases.pop(self._pop_connection, POP_SECONDS)
            if job_id and self._in_flight.closed:
                leases.put_back(self._pop_connection, job_id)
                return None
            lease = leases.take(self._pop_connection, job_id) if job_id else None
            return self._in_flight.add(lease) if lease else None

    def _work(self, job: InFlightJob) -> None:
        """Run one job to its end. When the device is lost, the job is given back, and this process takes no more."""
        lease = job.lease
        try:
            if lease.seconds_left <= 0:
                leases.expire(self._connection, lease.job_id)
            else:
                pipeline.run(self._worker_context, read_message(lease.job_id, lease.record), lease)
        except JobRefused as error:
            JobLog(log, lease.job_id).error("%s", error)
            publish_failure(self._connection, lease, error, dead=True)
        except DeviceLost:
            self._in_flight.close()
            self._in_flight.wait_idle()  # so that no other slot of this process takes the job again
            JobLog(log, lease.job_id).warning("goes back into the queue", extra={"event": "requeued"})
            leases.give_back(self._connection, lease, "device_lost")
        finally:
            self._in_flight.remove(job)
