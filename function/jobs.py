"""Operations on existing jobs: read the snapshot, the preview and the images; cancel."""

import logging
import re
from typing import Any, Literal

from upres.core import events, keys, leases
from upres.core.api import PreviewTile, PreviewTiles
from upres.core.errors import FieldError, InvalidRequest, JobNotFound, NoResult, ResultNotReady
from upres.core.logs import JobLog
from upres.core.results import NotTheirs, enlarged_link, original_link
from upres.core.schema import TERMINAL, Cancelled, Failed, Queued, Result, Snapshot, Succeeded, UnknownEvent, now
from upres.core.tolerance import readable
from upres.function.services import Services

log = logging.getLogger("upres.function")

# Jobs of other owners raise JobNotFound too, so that a client that guesses ids does not learn which jobs exist.


def snapshot(services: Services, job_id: str, owner: str | None) -> Snapshot:
    """Return the snapshot of an owner's job; a queued job's position is read from the queue. Raises JobNotFound."""
    check_id(job_id)
    entries = events.read(services.redis, job_id)
    if not entries or not _is_owner(entries[0], owner):
        raise _not_found(job_id)
    state = events.fold(event for _, event in entries)
    if state.status not in TERMINAL and now() > state.deadline and leases.expire(services.redis, job_id):
        return snapshot(services, job_id, owner)  # no worker was running that fails it
    if state.status == "queued":
        position = services.redis.lpos(services.queue.key, job_id)
        return state.model_copy(update={"position": position})
    return state


def preview(services: Services, job_id: str, owner: str | None, after: str) -> PreviewTiles:
    """Return the finished pieces of a running job, without the first `after`. Raises JobNotFound or InvalidRequest."""
    last_event(services, job_id, owner)
    if not re.fullmatch(r"[0-9]{1,9}", after):
        detail = "after must be the number of pieces to skip, a whole number."
        raise InvalidRequest([FieldError(field="after", code="invalid_after", given=after[:80], detail=detail)])
    pieces: Any = services.redis.lrange(keys.preview(job_id), int(after), -1)
    return PreviewTiles(tiles=tuple(readable(PreviewTile, pieces)))


def last_event(services: Services, job_id: str, owner: str | None) -> events.Entry:
    """Return the latest event of an owner's job. Raises JobNotFound."""
    check_id(job_id)
    with services.redis.pipeline(transaction=False) as pipeline:
        pipeline.xrange(keys.events(job_id), count=1)
        pipeline.xrevrange(keys.events(job_id), count=1)
        return check_owner(job_id, owner, pipeline.execute())


def check_owner(job_id: str, owner: str | None, ends: Any) -> events.Entry:
    """Return the latest event of a job after checking its owner.

    `ends` is the first and the last entry of the job's stream, each in a list that is empty when there is no stream.
    Raises JobNotFound.
    """
    first, last = map(events.parse, ends)
    if not first or not _is_owner(first[0], owner):
        raise _not_found(job_id)
    return last[0]


def cancel(services: Services, job_id: str, owner: str | None) -> Snapshot:
    """Cancel a job: it is removed from the queue, or its worker stops at its next event. Return the snapshot.

    A job that has ended does not change. Raises JobNotFound.
    """
    snapshot(services, job_id, owner)
    if events.append(services.redis, Cancelled(job_id=job_id)):
        JobLog(log, job_id).info("cancelled", extra={"event": "cancelled"})
    return snapshot(services, job_id, owner)


def link(services: Services, job_id: str, owner: str | None) -> str:
    """Make a new presigned URL of the enlarged image of a succeeded job. Raises what `result` and `link_of` raise."""
    return link_of(services, job_id, owner, result(services, job_id, owner), "result")


def link_of(
    services: Services, job_id: str, owner: str | None, result: Result, which: Literal["result", "original"]
) -> str:
    """Make a new presigned URL of an image of a job's result. Raises NoResult when an image is not the owner's."""
    try:
        # Both are made: a result of which one image is not the owner's is forged, and gives neither.
        enlarged, original = (make(services.store, owner, result) for make in (enlarged_link, original_link))
        return enlarged if which == "result" else original
    except NotTheirs as error:
        JobLog(log, job_id).error("forged: %s", error)
        raise NoResult("The job names images that are not its own; submit the image again.") from None


def result(services: Services, job_id: str, owner: str | None) -> Result:
    """Return the result of a succeeded job. Raises JobNotFound, ResultNotReady or NoResult."""
    match last_event(services, job_id, owner)[1]:
        case Succeeded(result=made):
            return made
        case Failed():
            raise NoResult("The job failed, so there is no result; submit the image again.")
        case Cancelled():
            raise NoResult("The job was cancelled, so there is no result; submit the image again.")
        case UnknownEvent(type=kind) if kind in TERMINAL:
            raise NoResult("Another release of upres ended the job, in words that this server does not understand.")
        case _:
            raise ResultNotReady(f"The job is not finished; follow it at /v1/jobs/{job_id}/events.")


def _is_owner(first: events.Entry, owner: str | None) -> bool:
    """Whether a job has this owner, by its first event. The first event is not `queued` if the stream had expired."""
    event = first[1]
    return isinstance(event, Queued) and event.owner == owner


def check_id(job_id: str) -> None:
    """Raise JobNotFound for text that is not a job id, so that it never becomes part of a Redis key."""
    if not keys.JOB_ID.fullmatch(job_id):
        raise _not_found(job_id)


def _not_found(job_id: str) -> JobNotFound:
    days = keys.EVENTS_SECONDS // keys.DAY
    return JobNotFound(f"There is no job {job_id[:64]!r}; jobs are kept for {days} days after their last event.")
