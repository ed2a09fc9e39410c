"""Cancels many jobs at once: what `rq empty` would do to the queue, but each job ends, and its clients hear of it."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from redis import Redis

from upres.core import events, keys
from upres.core.schema import Cancelled

AT_ONCE = 200
"""Number of jobs per round trip."""


def choose(connection: Redis, owner: str | None = None, min_age: float = 0, running: bool = False) -> list[str]:
    """Return the ids of jobs that have not ended: of one API key, or of all; accepted at least `min_age` seconds ago.

    Jobs that workers hold are left out unless `running`. Raises redis-py's errors.
    """
    unfinished: Any = connection.zrange(keys.DEADLINES, 0, -1)
    leased: Any = connection.zrange(keys.LEASES, 0, -1)
    held = set() if running else set(leased)
    now: Any = connection.time()
    latest = (now[0] + now[1] / 1e6 - min_age) * 1000
    chosen = []
    for some in _chunks([one.decode(errors="replace") for one in unfinished if one not in held]):
        with connection.pipeline(transaction=False) as pipeline:
            for job_id in some:
                pipeline.hget(keys.run(job_id), "owner")
                pipeline.xrange(keys.events(job_id), count=1)
            answers = pipeline.execute()
        for job_id, of, first in zip(some, answers[::2], answers[1::2], strict=True):
            accepted = int(first[0][0].split(b"-")[0]) if first else 0
            if accepted <= latest and (owner is None or (of or b"").decode() == owner):
                chosen.append(job_id)
    return chosen


def cancel(connection: Redis, job_ids: list[str]) -> Iterator[int]:
    """Cancel these jobs; yields how many of each round trip's had not ended by then. Raises redis-py's errors."""
    for some in _chunks(job_ids):
        with connection.pipeline(transaction=False) as pipeline:
            for job_id in some:
                events.append(pipeline, Cancelled(job_id=job_id))
            yield sum(answer is not None for answer in pipeline.execute())


def _chunks(job_ids: list[str]) -> Iterator[list[str]]:
    left = iter(job_ids)
    while some := list(islice(left, AT_ONCE)):
        yield some
