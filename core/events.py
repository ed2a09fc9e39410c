"""A job's events. Each job has one Redis stream, which holds its state, and a pub/sub channel, which wakes subscribers.

`append` writes to both in one round trip. It refuses to write after a terminal event, so a job ends exactly once. It
also refuses a worker that does not hold the job any more; such a worker stops.
"""

import secrets
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast

from pydantic import ValidationError

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
    UnknownEvent,
)
from upres.core.script import call
from upres.core.tolerance import or_none

if TYPE_CHECKING:
    import redis

START = "0-0"
"""A stream id that is before the first event of any stream."""

TYPE, DATA = b"type", b"data"
"""Fields of an entry of the stream: the type of the event, and its JSON."""

PROGRESS = {"stage", "tiles_done", "tiles_total", "frame", "frames", "percent", "eta_seconds"}
"""Fields of a snapshot that a progress event sets."""

Entry = tuple[str, Event | UnknownEvent]
"""A stream id (`milliseconds-sequence`) and its event."""


def append(
    connection: "redis.Redis | redis.client.Pipeline",
    event: Event,
    holder: str = "",
    dead: bool = False,
    busy: bool = False,
) -> str | None:
    """Append an event to its job's stream and publish it, atomically and in one round trip.

    With a fencing token (`holder`, see core/leases.py) the append is refused unless the job's holder has that token.
    A terminal event also removes the job from queue, leases and deadlines, and deletes its record; with `dead` the
    record is kept as a dead letter. The place of the job among those of its API key is free when a holder appends a
    terminal event, unless it is still `busy` with the job; else when the holder lets go of it (leases.let_go).

    Returns the event's id, or None when nothing was written, because the job has ended or has another holder. On a
    pipeline the return value is None, and the answer is in the result of `execute`.
    """
    # redis-py repeats a command whose answer was lost; by this token the script recognises the repetition.
    once = secrets.token_hex(8)
    data = event.model_dump_json(exclude_none=True)
    flags = ("dead" if dead else "", "busy" if busy else "")
    answer = call(connection, "append", event.job_id, once, holder, event.type, data, *flags)
    return answer.decode() if isinstance(answer, bytes) else None


def append_all(connection: "redis.Redis", several: Sequence[Event], holder: str) -> str | None:
    """Append several events of one job in their order, as its holder: all or none, in one round trip.

    The last one may be terminal. Returns the id of the last one, or None as `append`.
    """
    once = secrets.token_hex(8)
    parts = [part for event in several for part in (event.type, event.model_dump_json(exclude_none=True))]
    answer = call(connection, "append_all", several[0].job_id, once, holder, *parts)
    return answer.decode() if isinstance(answer, bytes) else None


def read(connection: "redis.Redis", job_id: str, after: str = START) -> list[Entry]:
    """Return all events of the job after the given id, oldest first; an empty list when there is no such job."""
    return parse(connection.xrange(keys.events(job_id), min=f"({after}"))


def parse(entries: Any) -> list[Entry]:
    """Convert stream entries as redis-py returns them, [(id, {field: value})] in bytes, to ids and events."""
    return [
        (entry_id.decode(), parse_one(fields.get(DATA, b""), fields.get(TYPE, b""))) for entry_id, fields in entries
    ]


def parse_one(data: bytes | str, kind: bytes = b"") -> Event | UnknownEvent:
    """Read the JSON of a stored event. One that this release cannot read has its type alone.

    If the JSON does not say the type, it is `kind`: the scripts store it beside the JSON, and go by it.
    """
    try:
        return EVENT.validate_json(data)
    except ValidationError:
        return or_none(UnknownEvent, data) or UnknownEvent(type=kind.decode(errors="replace"))


def is_terminal(event: Event | UnknownEvent) -> bool:
    """Whether the event ends its job, so that no event can follow it."""
    return event.type in TERMINAL


def fold(events: Iterable[Event | UnknownEvent]) -> Snapshot:
    """Compute the state of a job from all its events, oldest first. Those that cannot be read change nothing.

    But an end that cannot be read is an end: then the state has the status, without a result or a failure.

    Raises ValueError when there are no events, or when the first one is not `queued`.
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
        if isinstance(event, UnknownEvent):
            if event.type in TERMINAL:
                state = state.model_copy(update=_with_status(cast(Status, event.type)))
            continue
        state = state.model_copy(update={"updated_at": event.at, **_change(event)})
    return state


def _change(event: Event) -> dict[str, Any]:
    """The fields of a snapshot that an event changes, with their new values."""
    match event:
        case Started():
            return {
                **_with_status("running"),
                "worker": event.worker,
                "device": event.device,
                "attempt": event.attempt,
                "percent": 0.0,
                "tiles_done": 0,
                "tiles_total": 0,
                "frame": None,
                "frames": None,
            }
        case Progress():
            return event.model_dump(include=PROGRESS)
        case Succeeded():
            made = {"upscale_factor": event.result.upscale_factor, "result": event.result}
            return {**_with_status("succeeded"), "percent": 100.0, **made}
        case Failed():
            failure = Failure(code=event.code, message=event.message, retryable=event.retryable)
            return {**_with_status("failed"), "failure": failure}
        case Cancelled():
            return _with_status("cancelled")
        case Requeued():
            return _with_status("queued")
        case Queued():
            return {"position": event.position}


def _with_status(status: Status) -> dict[str, Any]:
    """The new status; it also resets the fields that were true for the previous status only."""
    return {"status": status, "stage": None, "position": None, "eta_seconds": None}
