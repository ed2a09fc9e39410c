"""Dead letters: failed jobs for the attention of an operator; their workers died, or an unexpected error ended them."""

import hashlib
from datetime import UTC, datetime
from typing import Any, NamedTuple

from redis import Redis

from upres.core import events, keys
from upres.core.enqueue import enqueue
from upres.core.errors import JobNotFound
from upres.core.job_message import JobMessage
from upres.core.queue import open_queue, read_fields, read_message
from upres.core.schema import Failed, now


class DeadLetter(NamedTuple):
    """A dead letter: the job's id, the time of its failure, and its error."""

    job_id: str
    at: datetime
    code: str
    message: str


def listing(connection: Redis, most: int = 100) -> list[DeadLetter]:
    """Return the latest dead letters, at most `most`, newest first."""
    found: Any = connection.zrevrange(keys.DEAD, 0, most - 1, withscores=True)
    return [_read(connection, job_id.decode(errors="replace"), died / 1000) for job_id, died in found]


def replay(connection: Redis, job_id: str) -> str:
    """Enqueue the request of a dead letter as a new job with as much time as before; return the new job's id.

    Raises JobNotFound when there is no such dead letter, JobRefused when its record cannot be read, WorkerOutdated when
    a newer release wrote it, and the errors of `enqueue`.
    """
    message = message_of(connection, job_id)
    fresh = message.model_copy(
        update={
            # The new id is derived from the old one, so that repeated or concurrent replays make one job.
            "job_id": hashlib.sha256(f"replay of {job_id}".encode()).hexdigest()[:32],
            "submitted_at": now(),
            "deadline": now() + (message.deadline - message.submitted_at),
            "original_url": None,  # it names the old job; so the original is made with the result
        }
    )
    enqueue(open_queue(connection), fresh)
    connection.zrem(keys.DEAD, job_id)
    connection.delete(keys.record(job_id))
    return fresh.job_id


def drop(connection: Redis, job_id: str) -> None:
    """Delete a dead letter; the job's events are kept until their TTL ends. Raises JobNotFound when there is none."""
    if not connection.zrem(keys.DEAD, job_id):
        raise _missing(job_id)
    connection.delete(keys.record(job_id))


def message_of(connection: Redis, job_id: str) -> JobMessage:
    """Read the job message of a dead letter.

    Raises JobNotFound when there is no such dead letter, JobRefused when its record cannot be read, WorkerOutdated when
    a newer release wrote it.
    """
    return read_message(job_id, _record(connection, job_id))


def fields_of(connection: Redis, job_id: str) -> dict[str, Any]:
    """Read the fields of the job message of a dead letter, also of a newer release.

    Raises JobNotFound when there is no such dead letter, JobRefused when its record cannot be read.
    """
    return read_fields(job_id, _record(connection, job_id))


def _record(connection: Redis, job_id: str) -> dict[bytes, bytes]:
    if connection.zscore(keys.DEAD, job_id) is None:
        raise _missing(job_id)
    record: Any = connection.hgetall(keys.record(job_id))
    return dict(record)


def _read(connection: Redis, job_id: str, died: float) -> DeadLetter:
    last = events.parse(connection.xrevrange(keys.events(job_id), count=1))
    failed = last[0][1] if last else None
    code, message = (failed.code, failed.message) if isinstance(failed, Failed) else ("unknown", "")
    return DeadLetter(job_id, datetime.fromtimestamp(died, UTC), code, message)


def _missing(job_id: str) -> JobNotFound:
    return JobNotFound(f"There is no dead letter {job_id[:64]!r}; `upres jobs dead` lists them.")
