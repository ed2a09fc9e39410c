"""A job's events: one Redis stream per job is the truth, its pub/sub channel the wake-up.

`append` writes to both in one round trip, and never after a terminal event: so a job ends exactly
once, and a worker whose append is refused knows that the job was cancelled meanwhile.
"""

from collections.abc import Iterable
from typing import Any

import redis

from core import keys
from core.schema import (
    EVENT,
    TERMINAL,
    Cancelled,
    Event,
    Failed,
    Failure,
    Progress,
    Queued,
    Snapshot,
    Started,
    Status,
    Succeeded,
)

START = "0-0"
"""The id before the first event of any stream."""

_APPEND = """
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
if last then
    local type = last[2][2]
    if type == 'succeeded' or type == 'failed' or type == 'cancelled' then return false end
end
local id = redis.call('XADD', KEYS[1], '*', 'type', ARGV[1], 'data', ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3])
redis.call('PUBLISH', ARGV[4], ARGV[2])
return id
"""

Entry = tuple[str, Event]
"""A stream id (`milliseconds-sequence`) and the event under it."""


def append(connection: "redis.Redis | redis.client.Pipeline", event: Event) -> str | None:
    """Append an event to its job's stream and publish it, atomically and in one round trip.

    Returns the event's id, or None when the job had already ended and nothing was written.
    On a pipeline the answer comes from its `execute`.
    """
    job_id = event.job_id
    answer: Any = connection.eval(
        _APPEND,
        1,
        keys.events(job_id),
        event.type,
        event.model_dump_json(exclude_none=True),
        str(keys.EVENTS_SECONDS),
        keys.channel(job_id),
    )
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
        output_format=first.output_format,
        submitted_at=first.at,
        updated_at=first.at,
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
        case Queued():
            return {"position": event.position}


def _ended(status: Status) -> dict[str, Any]:
    """What is no longer known once a job has a new status."""
    return {"status": status, "stage": None, "position": None, "eta_seconds": None}
