"""Questions about a job that exists: how far it is, cancel it, where its images are."""

import logging
import re
from typing import Any, Literal

from upres.core import events, keys, leases
from upres.core.api import PreviewTile, PreviewTiles
from upres.core.errors import FieldError, InvalidRequest, JobNotFound, NoResult, ResultNotReady
from upres.core.logs import JobLog
from upres.core.results import linked
from upres.core.schema import TERMINAL, Cancelled, Failed, Queued, Snapshot, Succeeded, now
from upres.function.services import Services

log = logging.getLogger("upres.function")

ANYBODYS = "*"
"""Stands for the owner of a job whose token was shown; no key has this id."""

# A job of somebody else is not found, as if it were not there: an id tells nothing to whoever guesses it.


def snapshot(services: Services, job_id: str, owner: str | None) -> Snapshot:
    """The owner's job now; its position is looked up while it is queued. Raises JobNotFound."""
    check_id(job_id)
    entries = events.read(services.redis, job_id)
    if not entries or not _is_owner(entries[0], owner):
        raise _not_found(job_id)
    state = events.fold(event for _, event in entries)
    if state.status not in TERMINAL and now() > state.deadline and leases.expire(services.redis, job_id):
        return snapshot(services, job_id, owner)  # no worker was there to say so
    if state.status == "queued":
        position = services.redis.lpos(services.queue.key, job_id)
        return state.model_copy(update={"position": position})
    return state


def preview(services: Services, job_id: str, owner: str | None, after: str) -> PreviewTiles:
    """What is finished of a running job's result, but for the first pieces. Raises JobNotFound or InvalidRequest."""
    last_event(services, job_id, owner)
    if not re.fullmatch(r"[0-9]{1,9}", after):
        detail = "after must be how many pieces were seen already."
        raise InvalidRequest([FieldError(field="after", code="invalid_after", given=after[:80], detail=detail)])
    pieces: Any = services.redis.lrange(keys.preview(job_id), int(after), -1)
    return PreviewTiles(tiles=tuple(map(PreviewTile.model_validate_json, pieces)))


def last_event(services: Services, job_id: str, owner: str | None) -> events.Entry:
    """The latest event of the owner's job. Raises JobNotFound."""
    check_id(job_id)
    with services.redis.pipeline(transaction=False) as pipeline:
        pipeline.xrange(keys.events(job_id), count=1)
        pipeline.xrevrange(keys.events(job_id), count=1)
        return theirs(job_id, owner, pipeline.execute())


def theirs(job_id: str, owner: str | None, ends: Any) -> events.Entry:
    """The latest event of the owner's job, of whose stream the first and the last entry are given, if there are any.

    Raises JobNotFound.
    """
    first, last = map(events.parse, ends)
    if not first or not _is_owner(first[0], owner):
        raise _not_found(job_id)
    return last[0]


def cancel(services: Services, job_id: str, owner: str | None) -> Snapshot:
    """End a job that has not ended: taken out of the queue, or stopped before its worker's next event.

    Cancelling a job that has ended changes nothing. Raises JobNotFound.
    """
    snapshot(services, job_id, owner)
    if events.append(services.redis, Cancelled(job_id=job_id)):
        JobLog(log, job_id).info("cancelled", extra={"event": "cancelled"})
    return snapshot(services, job_id, owner)


def link(services: Services, job_id: str, owner: str | None, which: Literal["result", "original"]) -> str:
    """A fresh link to an image of a finished job. Raises JobNotFound, ResultNotReady or NoResult."""
    match last_event(services, job_id, owner)[1]:
        case Succeeded(result=result):
            fresh = linked(services.store, result)
            return fresh.sr_image_url if which == "result" else fresh.original_image_url
        case Failed():
            raise NoResult("The job failed, so there is no result; submit the image again.")
        case Cancelled():
            raise NoResult("The job was cancelled, so there is no result; submit the image again.")
        case _:
            raise ResultNotReady(f"The job is not finished; follow it at /v1/jobs/{job_id}/events.")


def _is_owner(first: events.Entry, owner: str | None) -> bool:
    """Whether a job whose stream begins so is theirs; only a stream that expired begins in the middle."""
    event = first[1]
    return isinstance(event, Queued) and owner in (event.owner, ANYBODYS)


def check_id(job_id: str) -> None:
    """Raise JobNotFound for what cannot be the id of a job, and must not get as far as a key."""
    if not keys.JOB_ID.fullmatch(job_id):
        raise _not_found(job_id)


def _not_found(job_id: str) -> JobNotFound:
    days = keys.EVENTS_SECONDS // keys.DAY
    return JobNotFound(f"There is no job {job_id[:64]!r}; jobs are kept for {days} days after their last event.")
