"""One slot takes one job at a time from the queue; a worker process has several, in threads.

RQ's SimpleWorker needs three things to run off the main thread: timeouts without signals, no signal
handlers of its own, and a look from time to time whether it is told to stop.
"""

import threading
from collections.abc import Callable
from typing import Any, ClassVar

from rq import Queue
from rq.job import Job
from rq.timeouts import TimerDeathPenalty
from rq.worker import SimpleWorker

from core.errors import DeviceLost
from core.queue import connect, open_queue
from core.settings import Settings
from worker import job

LOOK_SECONDS = 1
"""How long a slot waits for a job before it looks whether it should stop."""


class AllowedJob(Job):
    """A job that can only call what this worker offers.

    RQ's own would import any dotted name found in Redis, as its function or as a callback, and post
    to any address found there as a webhook.
    """

    functions: ClassVar[dict[str, Callable[..., Any]]] = {}
    success_callback = None
    stopped_callback = None
    failure_callback = staticmethod(job.abandoned)

    @property
    def func(self) -> Callable[..., Any]:
        """The function for the job's name; PermissionError when it is not on the list."""
        try:
            return self.functions[self.func_name or ""]
        except KeyError:
            raise PermissionError(f"job {self.id} asks for {self.func_name!r}, which is not allowed") from None

    def send_webhooks(self, *arguments: Any, **options: Any) -> None:
        """None are sent."""


class Gate:
    """Behind it slots wait for jobs. Once it is shut, none of this process takes another."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting = 0
        self._open = True

    def enter(self) -> bool:
        """Whether a slot may wait for a job; then it must `leave`."""
        with self._changed:
            self._waiting += self._open
            return self._open

    def leave(self) -> None:
        """The slot has a job, or waited long enough."""
        with self._changed:
            self._waiting -= 1
            self._changed.notify_all()

    def shut(self) -> None:
        """Let none wait any more."""
        with self._changed:
            self._open = False

    def wait_empty(self) -> None:
        """Return when none waits any more, after `shut`."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting)


def guarded(function: Callable[[Any], None], gate: Gate) -> Callable[[Any], None]:
    """A job function that shuts the gate when the device is lost.

    RQ puts the job back into the queue then, where no slot of this process may find it.
    """

    def run(message: Any) -> None:
        try:
            function(message)
        except DeviceLost:
            gate.shut()
            gate.wait_empty()
            raise

    return run


class SlotWorker(SimpleWorker):
    """RQ's worker for a thread."""

    death_penalty_class = TimerDeathPenalty
    gate: Gate

    def _install_signal_handlers(self) -> None:
        """The process has its own."""

    def dequeue_job_and_maintain_ttl(
        self, timeout: int | None, max_idle_time: int | None = None
    ) -> tuple[Job, Queue] | None:
        """The next job; None, which ends the work, once the gate is shut. RQ's own would wait for ever."""
        while self.gate.enter():
            try:
                result = super().dequeue_job_and_maintain_ttl(LOOK_SECONDS, max_idle_time=LOOK_SECONDS)
            finally:
                self.gate.leave()
            if result:
                return result
        return None


class Slot(threading.Thread):
    """A thread that works until the gate is shut; the job in hand is finished."""

    def __init__(self, name: str, settings: Settings, gate: Gate) -> None:
        super().__init__(name=name, daemon=True)
        connection = connect(settings)
        queue = open_queue(connection, AllowedJob)
        self._worker = SlotWorker(
            [queue], name=name, connection=connection, job_class=AllowedJob, serializer=queue.serializer
        )
        self._worker.gate = gate

    def run(self) -> None:
        """Take jobs."""
        self._worker.work(logging_level="WARNING")
