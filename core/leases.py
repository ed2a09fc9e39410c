"""Which worker has which job, and what becomes of a job when its worker dies.

A worker that takes a job gets a lease, which it renews while it lives, and the number of the attempt: a
fencing token, with which a worker that was only thought dead can neither tell nor overwrite anything once
another goes on (Kleppmann 2016, «How to do distributed locking»). Times are those of Redis alone.
"""

import secrets
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

from redis import Redis

from core import keys
from core.errors import DeadlineExceeded, UpresError, WorkerLost
from core.schema import Failed, Requeued
from core.script import call

Reason = Literal["worker_lost", "worker_stopping", "device_lost", "identical_job"]


class Lease(NamedTuple):
    """A job that this worker has: which attempt it is, and RQ's record of it."""

    job_id: str
    attempt: int
    record: dict[bytes, bytes]


class Recovered(NamedTuple):
    """A job that was found without a living worker, or past its deadline, and what became of it."""

    job_id: str
    outcome: Literal["requeued", "failed"]


def pop(connection: Redis, seconds: float) -> str | None:
    """The id of the next job, waited for so long; it is in nobody's hands until it is taken."""
    # redis-py has no type for the timeout's fractions, which Redis takes.
    answer: Any = connection.blmove(keys.WAITING, keys.POPPED, seconds, "LEFT", "RIGHT")  # type: ignore[arg-type]
    if answer and not answer.isascii():  # an id of nobody's, which no text could name to take it
        connection.lrem(keys.POPPED, 1, answer)
        return None
    return answer.decode() if answer else None


def take(connection: Redis, job_id: str, holder: str) -> Lease | None:
    """Begin with a popped job; None when it has ended, or is somebody else's by now.

    `holder` is new for each popped job, so that the command can be repeated.
    """
    answer = call(connection, "take", job_id, holder)
    if not answer:
        return None
    fields = iter(answer[1])
    return Lease(job_id, int(answer[0]), dict(zip(fields, fields, strict=True)))


def renew(connection: Redis, leases: Iterable[Lease]) -> set[str]:
    """Sign of life; the ids of jobs that are not this worker's any more."""
    pairs = [str(part) for lease in leases for part in (lease.job_id, lease.attempt)]
    return {job_id.decode() for job_id in call(connection, "renew", *pairs)} if pairs else set()


def give_back(connection: Redis, lease: Lease, reason: Reason) -> None:
    """Put a job back before all others. One that lost its device counts as a death, since it may be the cause."""
    failed = _lost(lease.job_id).model_dump_json() if reason == "device_lost" else ""
    once = secrets.token_hex(8)
    call(connection, "give_back", lease.job_id, once, lease.attempt, _requeued(lease.job_id, reason), failed)


def recover(connection: Redis) -> list[Recovered]:
    """Put jobs back whose worker died, fail those for which too many did, and those past their deadline.

    Every worker does this all the time; each job is recovered by one of them.
    """
    expired, overdue = ([job_id.decode(errors="replace") for job_id in ids] for ids in call(connection, "overdue"))
    recovered = []
    for job_id in expired:
        requeued, failed = _requeued(job_id, "worker_lost"), _lost(job_id).model_dump_json()
        if outcome := call(connection, "recover", job_id, secrets.token_hex(8), requeued, failed):
            recovered.append(Recovered(job_id, outcome.decode()))
    return recovered + [Recovered(job_id, "failed") for job_id in overdue if expire(connection, job_id)]


def expire(connection: Redis, job_id: str) -> bool:
    """Fail a job if its deadline passed and it has not ended; whether that was so."""
    late = DeadlineExceeded("The job was not finished before its deadline; try it again, or give it more time.")
    event = failure(job_id, late).model_dump_json()
    return bool(call(connection, "expire", job_id, secrets.token_hex(8), event))


def failure(job_id: str, error: UpresError) -> Failed:
    """The event that tells an error."""
    return Failed(job_id=job_id, code=error.code, message=str(error), retryable=error.retryable)


def _lost(job_id: str) -> Failed:
    message = f"{keys.ATTEMPTS} workers died while they tried this image; try it again, or a smaller one."
    return failure(job_id, WorkerLost(message))


def _requeued(job_id: str, reason: Reason) -> str:
    return Requeued(job_id=job_id, reason=reason).model_dump_json()
