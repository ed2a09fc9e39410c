"""Follows the events of a job over several connections; does no I/O."""

import random
import time

import httpx

from upres.client.errors import JobCancelled, JobFailed, JobTimeout, ServerUnreachable
from upres.client.protocol import RECONNECT_SECONDS
from upres.client.sse import Decoder
from upres.core.schema import EVENT, TERMINAL, Cancelled, Event, Failed, Result, Snapshot, Succeeded

QUIET_SECONDS = 45.0
"""Read timeout in seconds: three times the server's heartbeat of 15 s (20 s behind a gateway that buffers)."""
GONE_SECONDS = 60
"""Seconds without a connection after which the server is considered unreachable."""
NOTHING_MORE = 204
"""HTTP status 204: the client has seen the terminal event already."""


class EventFollower:
    """The position in the events of a job, kept across connections.

    `after` is the id of the last event, None before the first; `over` is True after the terminal event.
    """

    def __init__(self, job_id: str, after: str | None, timeout: float | None) -> None:
        self.after, self.over = after, False
        self._job_id = job_id
        self._until = time.monotonic() + timeout if timeout is not None else None
        self._reached = time.monotonic()
        self._decoder = Decoder()

    @property
    def quiet_seconds(self) -> float:
        """The read timeout in seconds, at most the time left. Raises JobTimeout when no time is left."""
        if self._until is None:
            return QUIET_SECONDS
        left = self._until - time.monotonic()
        if left <= 0:
            raise JobTimeout(f"Job {self._job_id} has not ended in time; it goes on.")
        return min(QUIET_SECONDS, left)

    def begin(self, response: httpx.Response) -> None:
        """Called with each new response; status 204 means that no more events will come."""
        self._decoder = Decoder()
        self.over = response.status_code == NOTHING_MORE
        self._reached = time.monotonic()

    def feed(self, line: str) -> tuple[str, Event] | None:
        """Decode one line; returns (id, event) when the line completes an event. Raises JobTimeout."""
        self._reached = time.monotonic()
        if decoded := self._decoder.feed(line):
            event = EVENT.validate_json(decoded.data)
            self.after, self.over = decoded.id, event.type in TERMINAL
            return decoded.id, event
        if not self.over:
            _ = self.quiet_seconds
        return None

    def pause(self, error: httpx.TransportError) -> float:
        """Seconds to wait before reconnecting. Raises ServerUnreachable after GONE_SECONDS without connection."""
        if time.monotonic() - self._reached > GONE_SECONDS:
            raise ServerUnreachable(f"The server does not answer any more; job {self._job_id} goes on.") from error
        return min(RECONNECT_SECONDS * random.uniform(0.5, 1.5), self.quiet_seconds)


def result_of(job_id: str, ended: Event | Snapshot) -> Result:
    """The result of a job, from its terminal event or snapshot. Raises JobFailed or JobCancelled."""
    match ended:
        case Succeeded(result=result) | Snapshot(status="succeeded", result=Result() as result):
            return result
        case Failed() as failed:
            raise JobFailed(failed.code, failed.message, failed.retryable)
        case Snapshot(status="failed", failure=failure) if failure:
            raise JobFailed(failure.code, failure.message, failure.retryable)
        case Cancelled() | Snapshot(status="cancelled"):
            raise JobCancelled(f"Job {job_id} was cancelled.")
    raise AssertionError("a job's events end with a terminal one")
