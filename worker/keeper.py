"""The worker's thread that never does the work: renews leases, watches the clock, recovers what others lost.

It has a connection of its own and never waits for a job, so that a long call in one of the slots, or in the
device, delays no beat.
"""

import logging
import threading
import time
from collections.abc import Callable

from redis.exceptions import RedisError

from core import events, keys, leases, workers
from core.errors import DeadlineExceeded, TimedOut
from core.queue import connect_quickly
from core.schema import now
from core.settings import Settings
from core.workers import Worker
from worker.slots import Hands, Hold

log = logging.getLogger("upres.worker")

PATIENCE_SECONDS = 3
"""A Redis that says nothing for so long is asked again; several times within a lease."""
STUCK_SECONDS = 10
"""A job that goes on for so long after it was failed for its time hangs in a call that never returns."""


class Keeper(threading.Thread):
    """Beats until it is closed. `describe` says how the worker is."""

    def __init__(self, settings: Settings, hands: Hands, describe: Callable[[], Worker]) -> None:
        super().__init__(name="keeper", daemon=True)
        self._connection = connect_quickly(settings, PATIENCE_SECONDS)
        self._hands = hands
        self._describe = describe
        self._closed = threading.Event()
        self._failed: set[tuple[str, int]] = set()
        self.stuck = False

    def run(self) -> None:
        """Beat."""
        wait = 0.0
        while not self._closed.wait(wait):
            begin = time.monotonic()
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
        held = self._hands.held()
        for job_id in leases.renew(self._connection, [hold.lease for hold in held]):
            log.info("job %s is not ours any more; it stops at its next event", job_id)
        self._fail_late(held)
        self.tell()
        for job_id, outcome in leases.recover(self._connection):
            log.warning("job %s was without a worker, or late: %s", job_id, outcome)

    def tell(self) -> None:
        """Say how the worker is. Raises redis-py's errors."""
        workers.tell(self._connection, self._describe())

    def close(self) -> None:
        """Beat no more, and be forgotten."""
        self._closed.set()
        self.join(PATIENCE_SECONDS)
        workers.leave(self._connection, self._describe().name)

    def _fail_late(self, held: list[Hold]) -> None:
        """Tell jobs' ends that took too long, even while a call in them hangs; notice those that hang."""
        for hold in held:
            late = time.monotonic() - hold.until
            attempt = (hold.lease.job_id, hold.lease.attempt)
            if late > 0 and attempt not in self._failed:
                self._failed.add(attempt)
                failed = leases.failure(hold.lease.job_id, _lateness(hold))
                events.append(self._connection, failed, hold.lease.attempt)
            if late > STUCK_SECONDS:
                log.error("job %s hangs", hold.lease.job_id)
                self.stuck = True
        self._failed &= {(hold.lease.job_id, hold.lease.attempt) for hold in held}


def _lateness(hold: Hold) -> TimedOut:
    if now() >= hold.message.deadline:
        return DeadlineExceeded("The job was not finished before its deadline; give it more time, or try it again.")
    return TimedOut(f"The job took longer than {keys.JOB_SECONDS} seconds; send a smaller image.")
