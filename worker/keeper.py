"""The worker's thread that never does the work: renews leases, watches the clock, recovers what others lost.

It has a connection of its own and never waits for a job, so that a long call in one of the slots, or in the
device, delays no beat.
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
from upres.core.queue import connect_quickly
from upres.core.settings import Settings
from upres.core.workers import Worker
from upres.worker.report import fail
from upres.worker.slots import InFlightJob, InFlightJobs

log = logging.getLogger("upres.worker")

PATIENCE_SECONDS = 3
"""A Redis that says nothing for so long is asked again; several times within a lease."""
STUCK_SECONDS = 300
"""A job that goes on for so long after its failure was told hangs in a call that never returns: longer than fetching,
storing, and every repetition take."""
DEVICE_SECONDS = 120
"""No batch of tiles takes so long."""
SILENT_SECONDS = 60
"""A beat is over by then, even if Redis does not answer."""


class Keeper(threading.Thread):
    """Beats until it is closed. `describe` says how the worker is, `in_call` how long the device has been in a call."""

    def __init__(
        self, settings: Settings, in_flight: InFlightJobs, describe: Callable[[], Worker], in_call: Callable[[], float]
    ) -> None:
        super().__init__(name="keeper", daemon=True)
        self._in_call = in_call
        self._connection = connect_quickly(settings, PATIENCE_SECONDS)
        self._in_flight = in_flight
        self._describe = describe
        self._closed = threading.Event()
        self._beaten = time.monotonic()
        self.stuck = False

    def run(self) -> None:
        """Beat."""
        wait = 0.0
        while not self._closed.wait(wait):
            begin = self._beaten = time.monotonic()
            try:
                self.beat()
                wait = max(0.0, keys.BEAT_SECONDS - (time.monotonic() - begin))
            except RedisError as error:
                log.warning("a beat failed (%s)", error)
                wait = 0.5
            except Exception:
                log.exception("a beat failed")
                wait = keys.BEAT_SECONDS

    def beat(self) -> None:
        """One round of everything. Raises redis-py's errors."""
        held = self._in_flight.current()
        for job_id in leases.renew(self._connection, [taken.lease for taken in held]):
            JobLog(log, job_id).info("not ours any more; it stops at its next event", extra={"event": "lost"})
        for taken in held:
            self._watch(taken)
        if self._in_call() > DEVICE_SECONDS:
            log.error("the device hangs")
            self.stuck = True
        self.tell()
        for job_id, outcome in leases.recover(self._connection):
            JobLog(log, job_id).warning("was without a worker, or late: %s", outcome, extra={"event": outcome})

    def hangs(self) -> str | None:
        """What does not get on, if anything: the device, a job, or this thread itself."""
        if self._in_call() > DEVICE_SECONDS:
            return "a call of the device does not return"
        if self.stuck:
            return "a job hangs"
        silent = time.monotonic() - self._beaten
        return f"no beat for {silent:.0f} s" if self.is_alive() and silent > SILENT_SECONDS else None

    def tell(self) -> None:
        """Say how the worker is. Raises redis-py's errors."""
        workers.tell(self._connection, self._describe())

    def close(self) -> None:
        """Beat no more, and be forgotten."""
        self._closed.set()
        self.join(PATIENCE_SECONDS)
        workers.leave(self._connection, self._describe().name)

    def _watch(self, taken: InFlightJob) -> None:
        """Tell the end of a job that took too long, even while a call in it hangs; notice that it hangs."""
        now = time.monotonic()
        if taken.failed_at is None and now > taken.until:
            fail(self._connection, taken.lease, _lateness(taken.lease))
            taken.failed_at = now
        if taken.failed_at is not None and now > taken.failed_at + STUCK_SECONDS:
            JobLog(log, taken.lease.job_id).error("hangs")
            self.stuck = True


def _lateness(lease: Lease) -> TimedOut:
    if lease.seconds_left < keys.JOB_SECONDS:
        return DeadlineExceeded(leases.LATE)
    return TimedOut(f"The job took longer than {keys.JOB_SECONDS} seconds; send a smaller image.")
