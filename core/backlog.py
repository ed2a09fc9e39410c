"""The backlog: numbers of waiting, running and dead jobs, and of workers, for scaling, alarms and operators."""

from typing import Any, NamedTuple

from redis import Redis

from upres.core import keys, workers

LOOKED_AT = 64
"""Number of jobs at the front of the queue among which the oldest is searched. The first one need not be the oldest,
because jobs with high priority are put at the front."""


class Backlog(NamedTuple):
    """The numbers of jobs and workers at one time."""

    waiting: int
    running: int
    dead: int
    nowhere: int
    """Jobs that another program has removed from the queue; a worker finds them within keys.AUDIT_SECONDS."""
    oldest_seconds: float
    """Seconds since the oldest waiting job was accepted; 0 when no job waits."""
    workers: int
    """Number of ready workers."""
    slots: int
    """Number of jobs that the ready workers together run at once."""


def read(connection: Redis) -> Backlog:
    """Read the backlog in at most four round trips, however long the queue is. Raises redis-py's errors."""
    with connection.pipeline() as pipeline:  # a transaction, so that no job moves between two of these numbers
        pipeline.llen(keys.WAITING)
        pipeline.zcard(keys.LEASES)
        pipeline.zcard(keys.DEAD)
        pipeline.llen(keys.POPPED)
        pipeline.scard(keys.PARKED)
        pipeline.zcard(keys.DEADLINES)
        pipeline.lrange(keys.WAITING, 0, LOOKED_AT - 1)
        pipeline.time()
        waiting, running, dead, popped, parked, unfinished, next_ids, (seconds, microseconds) = pipeline.execute()
    ready = [worker for worker in workers.listing(connection) if worker.state == "ready"]
    return Backlog(
        waiting=waiting,
        running=running,
        dead=dead,
        nowhere=max(0, unfinished - waiting - running - popped - parked),
        oldest_seconds=_oldest(connection, next_ids, seconds + microseconds / 1e6),
        workers=len(ready),
        slots=sum(worker.slots for worker in ready),
    )


def _oldest(connection: Redis, job_ids: list[bytes], now: float) -> float:
    """Seconds since the oldest of these jobs was accepted; 0 when there are none.

    `now` is Redis's clock, which also made the ids of events: their first part is the time in milliseconds.
    """
    with connection.pipeline(transaction=False) as pipeline:
        for job_id in job_ids:
            pipeline.xrange(keys.events(job_id.decode(errors="replace")), count=1)
        firsts: list[Any] = pipeline.execute()
    accepted = [int(first[0][0].split(b"-")[0]) / 1000 for first in firsts if first]
    return max(0.0, now - min(accepted)) if accepted else 0.0
