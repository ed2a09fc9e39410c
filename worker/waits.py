"""Where a job waits for other jobs of its worker: for memory, or to be done alone. Its time does not run meanwhile."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from upres.core import keys, leases
from upres.core.logs import JobLog
from upres.worker.context import WorkerContext
from upres.worker.in_flight import InFlightJob
from upres.worker.report import Report

log = logging.getLogger("upres.worker")


@contextmanager
def reserved_memory(context: WorkerContext, report: Report, job: InFlightJob, bytes: int) -> Iterator[None]:
    """Reserve memory for the block."""

    def wait() -> None:
        job.pause()
        report.notice("Waits until the worker has memory.", "upscale")

    with context.budget.reserve(bytes, wait):
        if job.paused:
            job.begin()
        yield


@contextmanager
def alone_if_suspect(context: WorkerContext, report: Report, job: InFlightJob) -> Iterator[None]:
    """Let no other job run in this process during the block, if a worker has died with this job before.

    If this worker dies too, no other job was the cause, and no other job is lost.
    """
    lease = job.lease
    if lease.deaths < keys.SUSPECT_DEATHS:
        yield
        return
    JobLog(log, lease.job_id).info("is done alone; workers that died with it: %d", lease.deaths)
    job.pause()
    notice = "Waits until the worker has no other job, because a worker died with this one."
    with job.alone(lambda: report.notice(notice, "decode")):
        job.begin()
        leases.is_alone(context.connection, lease)
        yield
