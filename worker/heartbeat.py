"""The thread of a worker that never runs a job: it renews leases, watches deadlines, and recovers lost jobs.

It has its own connection and never waits for a job, so a long call in a slot or on the device delays no heartbeat.
"""

import logging
import threading
import time
from collections.abc import Callable

from redis.exceptions import RedisError

from upres.core import keys, leases, workers
from upres.core.errors import DeadlineExceeded, TimedOut
from upres.core.leases import Lease
from upres.core.logs import JobLog
from upres.core.queue import connect_with_timeout
from upres.core.settings import Settings
from upres.core.workers import Worker
from upres.worker.in_flight import InFlightJob, InFlightJobs
from upres.worker.outage_log import OutageLog
from upres.worker.report import publish_failure

log = logging.getLogger("upres.worker")

REDIS_TIMEOUT_SECONDS = 3
"""Timeout in seconds of a command to Redis. The next heartbeat tries again; three tries fit into one lease."""
STUCK_SECONDS = 300
"""A job that still runs this many seconds after its failure was published hangs in a call that never returns: a fetch,
a store request and all retries of commands together take less."""
DEVICE_SECONDS = 120
"""A call of the device that takes longer, in seconds, hangs: no batch of tiles takes this long."""
SILENT_SECONDS = 60
"""The heartbeat hangs when its last beat began more seconds ago: a beat takes less, even if Redis does not answer. When
all beats have failed for so long, a restart may help: it asks for the address of Redis again."""


class Heartbeat(threading.Thread):
    """Beats every keys.HEARTBEAT_SECONDS until it is closed.

    `describe` returns the worker's record for Redis. `in_call` returns for how many seconds the device's current call
    has run. `stuck` becomes true when the device or a job hangs, and stays true.
    """

    def __init__(
        self,
        settings: Settings,
        in_flight: InFlightJobs,
        describe: Callable[[], Worker],
        in_call: Callable[[], float],
        outage: OutageLog,
    ) -> None:
        super().__init__(name="heartbeat", daemon=True)
        self._in_call = in_call
        self._connection = connect_with_timeout(settings, REDIS_TIMEOUT_SECONDS)
        self._in_flight = in_flight
        self._describe = describe
        self._closed = threading.Event()
        self._outage = outage
        self._last_beat = self._last_success = time.monotonic()
        self.stuck = False

    def run(self) -> None:
        """Beat until closed; an error is logged, and the next beat tries again."""
        wait = 0.0
        while not self._closed.wait(wait):
            begin = self._last_beat = time.monotonic()
            try:
                self.beat()
                self._last_success = time.monotonic()
                self._outage.over()
                wait = max(0.0, keys.HEARTBEAT_SECONDS - (time.monotonic() - begin))
            except RedisError as error:
                self._outage.failed(error)
                wait = 0.5
            except Exception:
                log.exception("a heartbeat failed")
                wait = keys.HEARTBEAT_SECONDS

    def beat(self) -> None:
        """Renew leases, check deadlines and the device, publish the worker's record, recover lost jobs.

        Raises redis-py's errors.
        """
        jobs = self._in_flight.current()
        for job_id in leases.renew(self._connection, [job.lease for job in jobs]):
            JobLog(log, job_id).info("not held any more; it stops at its next event", extra={"event": "lost"})
        for job in jobs:
            self._check(job)
        if self._in_call() > DEVICE_SECONDS:
            log.error("the device hangs")
            self.stuck = True
        self.publish()
        for job_id, outcome in leases.recover(self._connection):
            JobLog(log, job_id).warning("had no worker, or passed its deadline: %s", outcome, extra={"event": outcome})

    def hangs(self) -> str | None:
        """Say in a few words what hangs: the device, a job or this thread; None when nothing hangs."""
        if self._in_call() > DEVICE_SECONDS:
            return "a call of the device does not return"
        if self.stuck:
            return "a job hangs"
        if not self.is_alive():
            return None
        silent, failing = (time.monotonic() - since for since in (self._last_beat, self._last_success))
        if silent > SILENT_SECONDS:
            return f"no beat for {silent:.0f} s"
        return f"Redis has accepted no beat for {failing:.0f} s" if failing > SILENT_SECONDS else None

    def publish(self) -> None:
        """Write the worker's record to Redis. Raises redis-py's errors."""
        workers.publish(self._connection, self._describe())

    def close(self) -> None:
        """Stop beating, and remove the worker's record from Redis. Raises redis-py's errors."""
        self._closed.set()
        self.join(REDIS_TIMEOUT_SECONDS)
        workers.deregister(self._connection, self._describe().name)

    def _check(self, job: InFlightJob) -> None:
        """Publish the failure of a job whose time is up, even while a call in it hangs. Set `stuck` when it hangs."""
        now = time.monotonic()
        if job.failed_at is None and now > job.until:
            publish_failure(self._connection, job.lease, _time_out(job.lease), busy=True)
            job.failed_at = now
        if job.failed_at is not None and now > job.failed_at + STUCK_SECONDS:
            JobLog(log, job.lease.job_id).error("the job hangs")
            self.stuck = True


def _time_out(lease: Lease) -> TimedOut:
    """Return the error for a job whose time is up: its own deadline passed, or the time limit of one attempt."""
    if lease.seconds_left < keys.JOB_SECONDS:
        return DeadlineExceeded(leases.LATE)
    return TimedOut(f"The job took longer than {keys.JOB_SECONDS} seconds; send a smaller image.")
