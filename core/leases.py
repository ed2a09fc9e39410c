"""Which worker has which job, and what becomes of a job when its worker dies.

A worker that takes a job becomes its holder: it gets a lease, which it renews while it lives, and a fencing
token, which is worthless as soon as the job is anybody else's. So a worker that was only thought dead
can neither tell nor overwrite anything (Kleppmann 2016, «How to do distributed locking»). Times are those of
Redis alone.
"""

import logging
import secrets
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

from redis import Redis
from redis.client import Pipeline

from upres.core import keys
from upres.core.errors import DeadlineExceeded, UpresError, WorkerLost
from upres.core.logs import JobLog
from upres.core.schema import Event, Failed, Requeued
from upres.core.script import call

log = logging.getLogger("upres.leases")

Reason = Literal["worker_lost", "worker_stopping", "device_lost", "identical_job"]


LATE = "The job was not finished before its deadline; try it again, or give it more time."


class Lease(NamedTuple):
    """A job that this worker has: as which holder, which attempt it is, how long it may take, RQ's record of it."""

    job_id: str
    holder: str
    attempt: int
    seconds_left: float
    record: dict[bytes, bytes]


class Recovered(NamedTuple):
    """A job that was found without a living worker, or past its deadline, and what became of it."""

    job_id: str
    outcome: Literal["requeued", "failed"]


def pop(connection: Redis, seconds: float) -> str | None:
    """The id of the next job, waited for so long; it is in nobody's hands until it is taken."""
    timeout: Any = seconds  # redis-py has no type for fractions, which Redis takes
    answer: Any = connection.blmove(keys.WAITING, keys.POPPED, timeout, "LEFT", "RIGHT")
    if answer and not answer.isascii():  # an id of nobody's, which no text could name to take it
        connection.lrem(keys.POPPED, 1, answer)
        return None
    return answer.decode() if answer else None


def put_back(connection: Redis, job_id: str) -> None:
    """Do not take a popped job."""
    call(connection, "put_back", job_id)


def take(connection: Redis, job_id: str) -> Lease | None:
    """Begin with a popped job; None when it has ended, or is somebody else's by now."""
    holder = secrets.token_hex(8)
    answer = call(connection, "take", job_id, holder)
    if not answer:
        return None
    fields = iter(answer[2])
    return Lease(job_id, holder, int(answer[0]), answer[1] / 1000, dict(zip(fields, fields, strict=True)))


def renew(connection: Redis, leases: Iterable[Lease]) -> set[str]:
    """Sign of life; the ids of jobs that are not this worker's any more."""
    pairs = [part for lease in leases for part in (lease.job_id, lease.holder)]
    return {job_id.decode() for job_id in call(connection, "renew", *pairs)} if pairs else set()


def give_back(connection: "Redis | Pipeline", lease: Lease, reason: Reason) -> None:
    """Put a job back before all others. One that lost its device counts as a death, since it may be the cause."""
    failed = _lost() if reason == "device_lost" else ""
    once = secrets.token_hex(8)
    call(connection, "give_back", lease.job_id, once, lease.holder, requeued(reason), failed)


def recover(connection: Redis) -> list[Recovered]:
    """Put jobs back whose worker died, fail those for which too many did, and those past their deadline.

    At most a hundred of each. Every worker does this all the time; each job is recovered by one of them.
    """
    found = iter(call(connection, "recover", secrets.token_hex(8), requeued("worker_lost"), _lost(), _late()))
    return [
        Recovered(job_id.decode(errors="replace"), outcome.decode())
        for job_id, outcome in zip(found, found, strict=True)
    ]


def expire(connection: Redis, job_id: str) -> bool:
    """Fail a job if its deadline passed and it has not ended; whether that was so."""
    late = bool(call(connection, "expire", job_id, secrets.token_hex(8), _late()))
    if late:
        fields = {"event": "failed", "code": DeadlineExceeded.code}
        JobLog(log, job_id).info("failed: %s", DeadlineExceeded.code, extra=fields)
    return late


def failure(job_id: str, error: UpresError) -> Failed:
    """The event that tells an error."""
    return Failed(job_id=job_id, code=error.code, message=str(error), retryable=error.retryable)


def requeued(reason: Reason) -> str:
    """What the script tells of a job that goes back into the queue."""
    return _rest(Requeued(job_id="", reason=reason))


def _rest(event: Event) -> str:
    """The JSON of an event after its job's id, which the script puts before it."""
    return event.model_dump_json(exclude={"job_id"}, exclude_none=True)[1:]


def _lost() -> str:
    message = f"{keys.ATTEMPTS} workers died while they tried this image; try it again, or a smaller one."
    return _rest(failure("", WorkerLost(message)))


def _late() -> str:
    return _rest(failure("", DeadlineExceeded(LATE)))
