"""The jobs that a worker process works on, shared by its slots and its heartbeat."""

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from upres.core import keys
from upres.core.leases import Lease


class InFlightJob:
    """A job that this process works on, and the time (`until`, of time.monotonic) when its time is up."""

    def __init__(self, lease: Lease, jobs: "InFlightJobs") -> None:
        self.lease = lease
        self._jobs = jobs
        self.until = 0.0
        self.begin()
        self.failed_at: float | None = None
        """Time (of time.monotonic) at which its failure was published because its time was up; else None."""

    @property
    def paused(self) -> bool:
        """Whether no time is counted now."""
        return self.until == math.inf

    def pause(self) -> None:
        """Count no time until `begin`: it waits for other jobs, and must not fail because of them."""
        self.until = math.inf

    def alone(self, on_wait: Callable[[], None]) -> AbstractContextManager[None]:
        """Keep other jobs out of this process during the block; see InFlightJobs.alone."""
        return self._jobs.alone(self, on_wait)

    def begin(self) -> None:
        """Count its time from now on."""
        self.until = time.monotonic() + min(keys.JOB_SECONDS, self.lease.seconds_left)


class InFlightJobs:
    """The jobs that this process works on. When `closed` is true, it takes no more. Safe from all threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._acquiring = 0
        self._jobs: set[InFlightJob] = set()
        self._suspects: list[InFlightJob] = []
        self.closed = False

    @property
    def takes_jobs(self) -> bool:
        """Whether slots may take jobs: not while the process stops, or a job wants to be alone in it."""
        return not (self.closed or self._suspects)

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

    @contextmanager
    def alone(self, job: InFlightJob, on_wait: Callable[[], None]) -> Iterator[None]:
        """Wait until no other job runs in this process, and keep it so during the block.

        Several jobs that want to be alone take turns; those that wait for their turn do not count as running. `on_wait`
        is called once if the job has to wait for others.
        """
        with self._changed:
            self._suspects.append(job)
            self._changed.notify_all()
            must_wait = self._suspects[0] is not job or self._others()
        try:
            if must_wait:
                on_wait()
            with self._changed:
                self._changed.wait_for(lambda: self._suspects[0] is job and not self._acquiring and not self._others())
            yield
        finally:
            with self._changed:
                self._suspects.remove(job)
                self._changed.notify_all()

    def _others(self) -> bool:
        """Whether jobs run that do not want to be alone."""
        return not self._jobs <= set(self._suspects)

    def add(self, lease: Lease) -> InFlightJob:
        """Add a job that was taken. The caller must call `remove` when it ends."""
        job = InFlightJob(lease, self)
        with self._changed:
            self._jobs.add(job)
        return job

    def remove(self, job: InFlightJob) -> None:
        """Remove a job that has ended, or that this process has given back."""
        with self._changed:
            self._jobs.discard(job)
            self._changed.notify_all()

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
