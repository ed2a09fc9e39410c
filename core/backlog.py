"""How much waits, runs and died, and since when: what scaling, alarms and operators go by."""

from typing import Any, NamedTuple

from redis import Redis

from upres.core import keys, workers

LOOKED_AT = 64
"""Jobs at the head of the queue of which the oldest is looked for: those with high priority are in front of older."""


class Backlog(NamedTuple):
    """The queue and its workers now."""

    waiting: int
    running: int
    dead: int
    oldest_seconds: float
    """Since the oldest waiting job was accepted; 0 when none waits."""
    workers: int
    """Those that take jobs."""
    slots: int


def read(connection: Redis) -> Backlog:
    """Four round trips at most, whatever the length of the queue. Raises redis-py's errors."""
    with connection.pipeline(transaction=False) as pipeline:
        pipeline.llen(keys.WAITING)
        pipeline.zcard(keys.LEASES)
        pipeline.zcard(keys.DEAD)
        pipeline.lrange(keys.WAITING, 0, LOOKED_AT - 1)
        pipeline.time()
        waiting, running, dead, next_ids, (seconds, microseconds) = pipeline.execute()
    ready = [worker for worker in workers.listing(connection) if worker.state == "ready"]
    return Backlog(
        waiting=waiting,
        running=running,
        dead=dead,
        oldest_seconds=_oldest(connection, next_ids, seconds + microseconds / 1e6),
        workers=len(ready),
        slots=sum(worker.slots for worker in ready),
    )


def _oldest(connection: Redis, job_ids: list[bytes], now: float) -> float:
    """By Redis's own clock, which also made the ids of events: their first part is milliseconds."""
    with connection.pipeline(transaction=False) as pipeline:
        for job_id in job_ids:
            pipeline.xrange(keys.events(job_id.decode(errors="replace")), count=1)
        firsts: list[Any] = pipeline.execute()
    accepted = [int(first[0][0].split(b"-")[0]) / 1000 for first in firsts if first]
    return max(0.0, now - min(accepted)) if accepted else 0.0
