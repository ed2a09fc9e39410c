"""A job's events: one Redis stream per job is the truth, its pub/sub channel the wake-up.

`append` writes to both in one round trip, never after a terminal event and never for an attempt that was
overtaken: so a job ends exactly once, and a worker whose append is refused knows that it is not its job any more.
"""

import secrets
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from upres.core import keys
from upres.core.schema import (
    EVENT,
    TERMINAL,
    Cancelled,
    Event,
    Failed,
    Failure,
    Progress,
    Queued,
    Requeued,
    Snapshot,
    Started,
    Status,
    Succeeded,
)
from upres.core.script import call

if TYPE_CHECKING:
    import redis

START = "0-0"
"""The id before the first event of any stream."""

Entry = tuple[str, Event]
"""A stream id (`milliseconds-sequence`) and the event under it."""


def append(
    connection: "redis.Redis | redis.client.Pipeline", event: Event, holder: str = "", dead: bool = False
) -> str | None:
    """Append an event to its job's stream and publish it, atomically and in one round trip.

    Returns the event's id, or None when nothing was written: the job had already ended, or is not the
    holder's (see core/leases.py) any more. With a terminal event the job is gone from everywhere else;
    `dead` keeps what is needed to replay it. On a pipeline the answer comes from its `execute`.
    """
    # redis-py repeats a command whose answer was lost; by the token the script knows it again.
    once = secrets.token_hex(8)
    data = event.model_dump_json(exclude_none=True)
    answer = call(connection, "append", event.job_id, once, holder, event.type, data, "dead" if dead else "")
    return answer.decode() if isinstance(answer, bytes) else None


def read(connection: "redis.Redis", job_id: str, after: str = START) -> list[Entry]:
    """All events of the job after the given id, oldest first; empty when there is no such job."""
    return parse(connection.xrange(keys.events(job_id), min=f"({after}"))


def parse(entries: Any) -> list[Entry]:
    """Stream entries as redis-py gives them, [(id, {field: value})] in bytes → ids and events."""
    return [(entry_id.decode(), EVENT.validate_json(fields[b"data"])) for entry_id, fields in entries]


def is_terminal(event: Event) -> bool:
    """Whether nothing can follow this event."""
    return event.type in TERMINAL


def fold(events: Iterable[Event]) -> Snapshot:
    """The state of a job is the fold of its events; the first must be `queued`.

    Raises ValueError when the events are none, or begin in the middle.
    """
    first, *rest = events
    if not isinstance(first, Queued):
        raise ValueError("a job's events begin with queued")
    state = Snapshot(
        job_id=first.job_id,
        status="queued",
        upscale_factor=first.upscale_factor,
        model=first.model,
        model_version=first.model_version,
        output_format=first.output_format,
        submitted_at=first.at,
        updated_at=first.at,
        deadline=first.deadline,
        position=first.position,
    )
    for event in rest:
        state = state.model_copy(update={"updated_at": event.at, **_change(event)})
    return state


def _change(event: Event) -> dict[str, Any]:
    """What one event changes in a snapshot."""
    match event:
        case Started():
            return {
                **_ended("running"),
                "worker": event.worker,
                "device": event.device,
                "attempt": event.attempt,
                "percent": 0.0,
                "tiles_done": 0,
                "tiles_total": 0,
            }
        case Progress():
            return event.model_dump(include={"stage", "tiles_done", "tiles_total", "percent", "eta_seconds"})
        case Succeeded():
            return {**_ended("succeeded"), "percent": 100.0, "result": event.result}
        case Failed():
            failure = Failure(code=event.code, message=event.message, retryable=event.retryable)
            return {**_ended("failed"), "failure": failure}
        case Cancelled():
            return _ended("cancelled")
        case Requeued():
            return _ended("queued")
        case Queued():
            return {"position": event.position}


def _ended(status: Status) -> dict[str, Any]:
    """What is no longer known once a job has a new status."""
    return {"status": status, "stage": None, "position": None, "eta_seconds": None}
