"""Jobs that ended in a way that an operator should see: their workers died, or nobody foresaw why."""

import hashlib
from datetime import UTC, datetime
from typing import Any, NamedTuple

from redis import Redis

from upres.core import events, keys
from upres.core.enqueue import enqueue
from upres.core.errors import JobNotFound
from upres.core.queue import open_queue, read_message
from upres.core.schema import Failed, JobMessage, now


class DeadLetter(NamedTuple):
    """One of them: when it died, and why."""

    job_id: str
    at: datetime
    code: str
    message: str


def listing(connection: Redis, most: int = 100) -> list[DeadLetter]:
    """The latest, newest first."""
    found: Any = connection.zrevrange(keys.DEAD, 0, most - 1, withscores=True)
    return [_read(connection, job_id.decode(), died / 1000) for job_id, died in found]


def replay(connection: Redis, job_id: str) -> str:
    """Enqueue the same image again as a new job, whose id it returns, with as much time as before.

    Raises JobNotFound when there is no such dead letter, JobRefused when its record cannot be read.
    """
    message = message_of(connection, job_id)
    fresh = message.model_copy(
        update={
            # One letter makes one job, however often this is tried, and by whom.
            "job_id": hashlib.sha256(f"replay of {job_id}".encode()).hexdigest()[:32],
            "submitted_at": now(),
            "deadline": now() + (message.deadline - message.submitted_at),
        }
    )
    enqueue(open_queue(connection), fresh)
    connection.zrem(keys.DEAD, job_id)
    connection.delete(keys.record(job_id))
    return fresh.job_id


def drop(connection: Redis, job_id: str) -> None:
    """Forget it; its events stay as long as any job's. Raises JobNotFound."""
    if not connection.zrem(keys.DEAD, job_id):
        raise _missing(job_id)
    connection.delete(keys.record(job_id))


def message_of(connection: Redis, job_id: str) -> JobMessage:
    """What the job asked for. Raises JobNotFound or JobRefused."""
    if connection.zscore(keys.DEAD, job_id) is None:
        raise _missing(job_id)
    record: Any = connection.hgetall(keys.record(job_id))
    return read_message(job_id, record)


def _read(connection: Redis, job_id: str, died: float) -> DeadLetter:
    last = events.parse(connection.xrevrange(keys.events(job_id), count=1))
    failed = last[0][1] if last else None
    code, message = (failed.code, failed.message) if isinstance(failed, Failed) else ("unknown", "")
    return DeadLetter(job_id, datetime.fromtimestamp(died, UTC), code, message)


def _missing(job_id: str) -> JobNotFound:
    return JobNotFound(f"There is no dead letter {job_id[:64]!r}; `upres jobs dead` lists them.")
