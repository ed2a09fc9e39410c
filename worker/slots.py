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


class SlotWorker(SimpleWorker):
    """RQ's worker for a thread."""

    death_penalty_class = TimerDeathPenalty

    def _install_signal_handlers(self) -> None:
        """The process has its own."""

    def dequeue_job_and_maintain_ttl(
        self, timeout: int | None, max_idle_time: int | None = None
    ) -> tuple[Job, Queue] | None:
        """The next job; None, which ends the work, when told to stop. RQ's own would wait for ever."""
        while not self._stop_requested:
            if result := super().dequeue_job_and_maintain_ttl(LOOK_SECONDS, max_idle_time=LOOK_SECONDS):
                return result
        return None


class Slot(threading.Thread):
    """A thread that works until it is told to stop."""

    def __init__(self, name: str, settings: Settings) -> None:
        super().__init__(name=name, daemon=True)
        connection = connect(settings)
        queue = open_queue(connection, AllowedJob)
        self._worker = SlotWorker(
            [queue],
            name=name,
            connection=connection,
            job_class=AllowedJob,
            serializer=queue.serializer,
        )

    def run(self) -> None:
        """Take jobs."""
        self._worker.work(logging_level="WARNING")

    def stop(self) -> None:
        """Take no more jobs; the one in hand is finished."""
        self._worker._stop_requested = True
