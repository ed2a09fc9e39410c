"""The Backend that enlarges the images of a batch on a server."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from upres.client.batch import Callbacks
from upres.client.following import is_terminal, result_of
from upres.client.output_paths import Output
from upres.client.protocol import JobOptions
from upres.client.sdk import Client
from upres.core.errors import UpresError
from upres.core.schema import Event, Snapshot

QUICK_SECONDS = 1
"""Seconds that a submission waits for the result: a short job then takes one request instead of three."""

LATE_SECONDS = 4
"""Additional seconds allowed, after Ctrl-C, for the responses to submissions and cancellations."""


class Remote:
    """Jobs on a server with the same factor and options, which say the size if the factor is None.

    `cancel_client` has short timeouts.
    """

    def __init__(self, client: Client, cancel_client: Client, factor: float | None, options: JobOptions) -> None:
        self._client, self._cancel_client, self._factor, self._options = client, cancel_client, factor, options
        self._jobs: set[str] = set()
        self._lock = threading.Lock()
        self._submitting = 0

    def enlarge(self, image: str, callbacks: Callbacks) -> Output:
        """See Backend."""
        with self._submission():
            job = self._client.submit(
                image, self._factor, wait=QUICK_SECONDS, on_bytes=callbacks.on_bytes, **self._options
            )
            if not isinstance(job, Snapshot):
                self._jobs.add(job.job_id)
        ended = job if isinstance(job, Snapshot) else self._follow(job.job_id, callbacks.on_event)
        result = result_of(job.job_id, ended)
        return Output(result, lambda path, may_replace: self._client.save(result, path, may_replace=may_replace))

    def cancel(self) -> None:
        """See Backend."""
        deadline = time.monotonic() + QUICK_SECONDS + LATE_SECONDS
        while self._submitting and time.monotonic() < deadline:
            time.sleep(0.02)
        cancelling = [threading.Thread(target=self._cancel, args=(one,), daemon=True) for one in list(self._jobs)]
        for thread in cancelling:
            thread.start()
        for thread in cancelling:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _cancel(self, job_id: str) -> None:
        with suppress(UpresError):
            self._cancel_client.cancel(job_id)

    @contextmanager
    def _submission(self) -> Iterator[None]:
        """Count a submission whose job id is not known yet; `cancel` waits for these."""
        with self._lock:
            self._submitting += 1
        try:
            yield
        finally:
            with self._lock:
                self._submitting -= 1

    def _follow(self, job_id: str, on_event: Callable[[Event], None]) -> Event | Snapshot:
        try:
            for event in self._client.events(job_id):
                on_event(event)
        finally:
            self._jobs.discard(job_id)
        return event if is_terminal(event) else self._client.status(job_id)
