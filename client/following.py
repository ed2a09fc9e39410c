"""Follows the events of a job over several connections; does no I/O."""

import json
import random
import re
import time
from collections.abc import Iterator

import httpx
from pydantic import ValidationError

from upres.client.calls import Call, Deadline
from upres.client.errors import JobCancelled, JobFailed, ServerUnreachable
from upres.client.protocol import MAX_BACKOFF, MAX_PAUSE, RECONNECT_SECONDS
from upres.client.responses import check_stream, is_at_limit, retry_after, stranger, unreachable
from upres.client.sse import Decoder
from upres.core.schema import EVENT, TERMINAL, Cancelled, Event, Failed, Result, Snapshot, Succeeded

QUIET_SECONDS = 45.0
"""Read timeout in seconds: three times the server's heartbeat of 15 s (20 s behind a gateway that buffers)."""
GONE_SECONDS = 60
"""Seconds without a line from the server after which it is considered unreachable."""
KNOWN = {"queued", "started", "progress", "requeued", *TERMINAL}
"""The types of events that this release knows."""
EVENT_ID = re.compile(r"[0-9]{1,20}-[0-9]{1,20}")
"""Form of an event's id, which the next request repeats in the header Last-Event-ID."""
NOTHING_MORE = 204
"""HTTP status 204: the client has seen the terminal event already."""


class EventFollower:
    """The position in the events of a job, kept across connections.

    `after` is the id of the last event, None before the first; `over` is True after the terminal event.
    """

    def __init__(self, job_id: str, after: str | None, deadline: Deadline) -> None:
        self.after, self.over = after, False
        self._job_id = job_id
        self._deadline = deadline
        self._heard = time.monotonic()
        self._connections = 0
        self._asked = 0.0
        self._decoder = Decoder()

    @property
    def quiet_seconds(self) -> float:
        """The read timeout in seconds, at most the time left. Raises JobTimeout when no time is left."""
        return self._deadline.limit(QUIET_SECONDS)

    def begin(self, call: Call, response: httpx.Response) -> None:
        """Called with each new response; status 204 means that no more events will come.

        A server that refuses the stream because too many are open is asked again for as long as it answers so. Raises
        an error for a response that is not from upres; when events came before, a transport error, because a proxy may
        show another page while the server is replaced.
        """
        self._decoder = Decoder()
        if response.is_error and is_at_limit(response):
            self._asked, self._heard = min(retry_after(response), MAX_PAUSE), time.monotonic()
        try:
            check_stream(call, response)
            if response.status_code == NOTHING_MORE and self.after is None:
                raise stranger(call, response)
        except ServerUnreachable as error:
            if self.after is None:
                raise
            raise httpx.RemoteProtocolError(str(error)) from error
        self.over = response.status_code == NOTHING_MORE

    def feed(self, piece: bytes) -> Iterator[tuple[str, Event]]:
        """Decode a piece of the stream; yields (id, event) for each event that it completes.

        Raises JobTimeout, or ServerUnreachable for what no upres sends.
        """
        understood = self._decoder.understood
        for decoded in self._decoder.feed(piece):
            event = _event(decoded.data)
            if event is None:
                continue  # of a newer server
            if not EVENT_ID.fullmatch(decoded.id):
                raise ServerUnreachable(f"The server sent an event with the id {decoded.id[:100]!r}, unlike upres.")
            self.after, self.over, self._connections = decoded.id, event.type in TERMINAL, 0
            yield decoded.id, event
        if self._decoder.understood > understood:
            self._heard = time.monotonic()
        if not self.over:
            _ = self._deadline.left

    def pause(self, call: Call, error: Exception | None) -> float:
        """Seconds to wait before reconnecting: exponential backoff with jitter, or Retry-After if that is longer.

        Only an event resets the backoff. Raises ServerUnreachable after GONE_SECONDS without a line, or at once when no
        attempt can succeed.
        """
        failure = unreachable(call, error) if error else None
        if failure and not failure.retryable:
            raise failure
        if time.monotonic() - self._heard > GONE_SECONDS:
            why = str(error) if error else "its answers have no events"
            raise ServerUnreachable(
                f"The server sends no events any more ({why}); job {self._job_id} goes on."
            ) from error
        self._connections += 1
        backoff = min(MAX_BACKOFF, RECONNECT_SECONDS * 2 ** min(self._connections - 1, 10))
        asked, self._asked = self._asked, 0.0
        return self._deadline.limit(max(backoff * random.uniform(0.5, 1), asked))


def _event(data: str) -> Event | None:
    """The event in the data of a server-sent event; None for a type that this release does not know.

    Raises ServerUnreachable when it is no event of upres.
    """
    try:
        return EVENT.validate_json(data)
    except ValidationError:
        pass
    try:
        kind = json.loads(data)["type"]
    except (ValueError, TypeError, LookupError, RecursionError):
        kind = None
    if not isinstance(kind, str) or kind in KNOWN:
        raise ServerUnreachable(f"The server sent an event that is not from upres: {data[:100]!r}.")
    return None


def is_terminal(event: Event) -> bool:
    """Whether an event says how its job ended.

    The last one that a client gets does not, when Redis has lost the end of the stream in a failover, and a clock that
    was behind gave the later events smaller ids: then only the job's state says it.
    """
    return event.type in TERMINAL


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
    raise ServerUnreachable(f"The server sent no outcome of job {job_id}, though its events have ended.")
