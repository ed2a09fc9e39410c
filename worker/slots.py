"""One slot runs one job at a time; a worker process has several slots, in threads.

The queue is RQ's. RQ's own workers are not used: they fork for each job or block the main thread, their leases last as
long as a job's timeout, and a job whose worker dies between pop and start waits for a minute or is lost. The changes of
a job in Redis are in core/jobs.lua.
"""

import logging
import random
import threading
import time
from typing import NamedTuple

from redis.exceptions import RedisError

from upres.core import leases
from upres.core.errors import DeviceLost, JobRefused, QueueUnavailable, UpresError, WorkerOutdated
from upres.core.leases import Lease
from upres.core.logs import JobLog
from upres.core.queue import connect, connect_with_timeout, read_message
from upres.core.settings import Settings
from upres.worker import job as pipeline
from upres.worker.circuit_breaker import CircuitBreaker
from upres.worker.context import WorkerContext
from upres.worker.in_flight import InFlightJob, InFlightJobs
from upres.worker.outage_log import OutageLog
from upres.worker.own_faults import own_fault
from upres.worker.report import publish_failure

log = logging.getLogger("upres.worker")

POP_SECONDS = 1.0
"""Seconds that a slot waits for a job before it checks whether it should stop."""
REDIS_TIMEOUT_SECONDS = POP_SECONDS + 4
"""Timeout in seconds of the connection that pops jobs: longer than a pop may wait for a job."""
PAUSED_SECONDS = 0.1
"""Interval in seconds at which a slot that may not take jobs checks whether it may."""
OUTDATED_PAUSE_SECONDS = 1.0
"""Pause in seconds of a slot that meets a job again which only a newer release knows."""
MAX_FAILURES = 5
"""Number of failures after which the pause between retries does not grow any more; it is then at most 3.2 seconds."""


class SharedBySlots(NamedTuple):
    """What the slots of a process share, besides the context."""

    in_flight: InFlightJobs
    breaker: CircuitBreaker
    outage: OutageLog
    popping: threading.Lock
    """Held by the one slot that waits for a job, so that an idle worker sends one request a second."""


class Slot(threading.Thread):
    """A thread that runs one job after the other until `in_flight` is closed; it finishes the one it has."""

    def __init__(self, name: str, settings: Settings, shared: SharedBySlots, context: WorkerContext) -> None:
        super().__init__(name=name, daemon=True)
        self._pop_connection = connect_with_timeout(settings, REDIS_TIMEOUT_SECONDS)
        self._connection = connect(settings)
        self._in_flight, self._breaker, self._outage, self._popping = shared
        self._worker_context = context
        self._passed_on: set[str] = set()

    def run(self) -> None:
        """Take jobs and run them. Errors of Redis are logged and retried with backoff."""
        failures = 0
        while not self._in_flight.closed:
            if not (self._in_flight.takes_jobs and self._breaker.admits()):
                time.sleep(PAUSED_SECONDS)
                continue
            try:
                job = self._take()
                failures = 0
                if job:
                    self._work(job)
            except RedisError as error:
                failures = min(failures + 1, MAX_FAILURES)
                self._outage.failed(error)
                time.sleep(random.uniform(0.1, 0.1 * 2**failures))
            except Exception as error:
                if not self._tripped(error):
                    log.exception("%s failed; if it had a job, its lease will run out", self.name)
                    time.sleep(PAUSED_SECONDS)
            finally:
                self._breaker.leave()

    def _take(self) -> InFlightJob | None:
        """Pop and take the next job; None when none comes within POP_SECONDS, or when the job cannot be taken."""
        with self._popping, self._in_flight.acquiring():
            job_id = leases.pop(self._pop_connection, POP_SECONDS) if self._may_take() else None
            if job_id and not self._may_take():
                leases.put_back(self._pop_connection, job_id)
                return None
            lease = leases.take(self._pop_connection, job_id) if job_id else None
            return self._in_flight.add(lease) if lease else None

    def _may_take(self) -> bool:
        """Whether this slot, which was admitted, may still take a job."""
        return self._in_flight.takes_jobs and not self._breaker.is_open

    def _work(self, job: InFlightJob) -> None:
        """Run one job to its end, or give it back: for a fault of this worker it is tried again, elsewhere if possible.

        When the device is lost, this process takes no more jobs.
        """
        lease = job.lease
        try:
            self._run(job)
        except DeviceLost:
            self._in_flight.close()
            self._in_flight.wait_idle()  # so that no other slot of this process takes the job again
            self._log_requeued(lease)
            leases.give_back(self._connection, lease, "device_lost")
        except RedisError as error:
            self._outage.failed(error)
            self._hand_back(lease, QueueUnavailable("Redis does not answer; try again in a few seconds."))
        except Exception as error:
            if fault := self._tripped(error):
                self._hand_back(lease, fault)
            elif isinstance(error, WorkerOutdated):
                self._pass_on(lease, error)
            elif isinstance(error, JobRefused):
                JobLog(log, lease.job_id).error("%s", error)
                publish_failure(self._connection, lease, error, dead=True)
            else:
                raise
        finally:
            self._in_flight.remove(job)

    def _tripped(self, error: Exception) -> UpresError | None:
        """Pause the worker if the error is its own fault, and return that fault; else None."""
        if isinstance(error, pipeline.WORKER_FAULTS):
            fault: UpresError | None = error
        else:
            fault = own_fault(error, self._worker_context.store.host)
        if fault:
            self._breaker.trip(str(fault))
        return fault

    def _run(self, job: InFlightJob) -> None:
        """Run one job, unless its deadline has passed. Raises what worker/job.py raises."""
        lease = job.lease
        if lease.seconds_left <= 0:
            leases.expire(self._connection, lease.job_id)
            return
        message = read_message(lease.job_id, lease.record)
        if pipeline.run(self._worker_context, message, job):
            self._breaker.close()
        else:
            leases.let_go(self._connection, lease)

    def _hand_back(self, lease: Lease, error: UpresError) -> None:
        """Put a job back into the queue, as soon as Redis accepts that. Its lease is renewed until then.

        The connection that took the job is open; a new one may be what this machine has no file descriptor for.
        """
        while not self._in_flight.closed:  # a process that stops gives back all jobs that it still has
            try:
                outcome = leases.hand_back(self._pop_connection, lease, error)
                if outcome == "failed":
                    fields = {"event": "failed", "code": error.code}
                    JobLog(log, lease.job_id).info("failed: %s", error.code, extra=fields)
                elif outcome:
                    self._log_requeued(lease)
                return
            except (RedisError, OSError) as refused:
                self._outage.failed(refused)
                time.sleep(PAUSED_SECONDS)

    def _pass_on(self, lease: Lease, error: WorkerOutdated) -> None:
        """Leave a job to a worker of a newer release. Pause when it comes again: the queue has only such jobs."""
        outcome = leases.pass_on(self._connection, lease, error)
        log_job = JobLog(log, lease.job_id)
        if outcome is None:  # it was cancelled meanwhile, or is past its deadline
            leases.let_go(self._connection, lease)
        elif outcome == "failed":
            log_job.error("failed: %s", error.code, extra={"event": "failed", "code": error.code})
        elif lease.job_id in self._passed_on:
            self._passed_on.clear()
            time.sleep(OUTDATED_PAUSE_SECONDS)
        else:
            self._passed_on.add(lease.job_id)
            log_job.warning("goes back into the queue: %s", error, extra={"event": "requeued"})

    def _log_requeued(self, lease: Lease) -> None:
        JobLog(log, lease.job_id).warning("goes back into the queue", extra={"event": "requeued"})
