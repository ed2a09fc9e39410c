"""Leases: which worker holds which job, and how a job is recovered when its worker dies.

A worker that takes a job becomes its holder: it gets a lease, which it renews, and a fencing token, which is void as
soon as the job has another holder or is back in the queue. So a worker whose lease expired, but which still runs, can
publish and overwrite nothing (Kleppmann 2016, «How to do distributed locking»). Only the clock of Redis is used.
"""

import logging
import secrets
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

from redis import Redis
from redis.client import Pipeline

from upres.core import keys
from upres.core.errors import DeadlineExceeded, JobLost, UpresError, WorkerLost, WorkerOutdated
from upres.core.logs import JobLog
from upres.core.schema import Event, Failed, Reason, Requeued
from upres.core.script import call

log = logging.getLogger("upres.leases")

GONE = "Another program deleted the job from the queue before it ran; send the image again."
DIED = "Several workers died while they tried this image; try it again, or a smaller one."
LATE = "The job was not finished before its deadline; try it again, or give it more time."


class Lease(NamedTuple):
    """A job that this worker holds: its fencing token, attempt (from 1), seconds to its deadline, and RQ's record.

    `deaths` is the number of workers that died while they held it.
    """

    job_id: str
    holder: str
    attempt: int
    seconds_left: float
    record: dict[bytes, bytes]
    deaths: int = 0


class Recovered(NamedTuple):
    """A job whose lease had expired or whose deadline had passed, and what `recover` did with it."""

    job_id: str
    outcome: Literal["requeued", "failed"]


def pop(connection: Redis, seconds: float) -> str | None:
    """Pop the next job's id, after waiting for at most `seconds`; None when there is none.

    No worker holds the job until it is taken. Unless that happens within keys.POPPED_SECONDS, it is requeued.
    """
    timeout: Any = seconds  # redis-py declares an int, but Redis accepts fractions
    answer: Any = connection.blmove(keys.WAITING, keys.POPPED, timeout, "LEFT", "RIGHT")
    if answer and not answer.isascii():  # a forged id, which cannot be decoded to a str
        connection.lrem(keys.POPPED, 1, answer)
        return None
    return answer.decode() if answer else None


def put_back(connection: Redis, job_id: str) -> None:
    """Put a popped job that was not taken back at the front of the queue."""
    call(connection, "put_back", job_id)


def take(connection: Redis, job_id: str) -> Lease | None:
    """Take a popped job and become its holder; None when it has ended or has another holder."""
    holder = secrets.token_hex(8)
    answer = call(connection, "take", job_id, holder)
    if not answer:
        return None
    fields = iter(answer[2])
    return Lease(job_id, holder, int(answer[0]), answer[1] / 1000, dict(zip(fields, fields, strict=True)), answer[3])


def renew(connection: Redis, leases: Iterable[Lease]) -> set[str]:
    """Renew leases for keys.LEASE_SECONDS. Return the ids of those jobs that this worker does not hold any more.

    Those that have ended keep their places among the jobs of their API keys, until this worker lets go of them.
    """
    pairs = [part for lease in leases for part in (lease.job_id, lease.holder)]
    return {job_id.decode() for job_id in call(connection, "renew", *pairs)} if pairs else set()


def let_go(connection: Redis, lease: Lease) -> None:
    """Free the place of a job among those of its API key, if the job ended while this worker worked on it."""
    call(connection, "let_go", lease.job_id, lease.holder)


def give_back(connection: "Redis | Pipeline", lease: Lease, reason: Reason) -> None:
    """Put a job back at the front of the queue.

    The reason `device_lost` counts as a death of a worker, because the job may be the cause.
    """
    failed = _worker_lost() if reason == "device_lost" else ""
    once = secrets.token_hex(8)
    call(connection, "give_back", lease.job_id, once, lease.holder, requeued(reason), failed)


def hand_back(connection: Redis, lease: Lease, error: UpresError) -> str | None:
    """Put a job back at the front of the queue, because of a fault that is this worker's and not the job's.

    After keys.RETURNS of these the job fails with the error. Returns `requeued` or `failed`; None when this worker does
    not hold the job any more.
    """
    messages = (requeued("worker_unwell"), _without_id(failure("", error)))
    answer = call(connection, "hand_back", lease.job_id, secrets.token_hex(8), lease.holder, *messages)
    return answer.decode() if answer else None


def pass_on(connection: Redis, lease: Lease, error: WorkerOutdated) -> str | None:
    """Put a job at the back of the queue, for a worker of a newer release.

    Once this has gone on for keys.OUTDATED_SECONDS the job fails with the error, as a dead letter. Returns `requeued`
    or `failed`; None when this worker does not hold the job any more.
    """
    messages = (requeued("worker_outdated"), _without_id(failure("", error)))
    answer = call(connection, "pass_on", lease.job_id, secrets.token_hex(8), lease.holder, *messages)
    return answer.decode() if answer else None


def is_alone(connection: Redis, lease: Lease) -> None:
    """Note that this worker process has no other job from now on: if it dies, this job is the likely cause."""
    call(connection, "is_alone", lease.job_id, lease.holder)


def at_work(connection: Redis, lease: Lease, model: str, digest: str) -> None:
    """Note which version of a model works on the job from now on: if it is a canary, its rule counts how the job ends.

    The count is made by whoever ends the job, also when this worker has died (core/canaries.lua).
    """
    call(connection, "at_work", lease.job_id, lease.holder, model, digest)


def recover(connection: Redis) -> list[Recovered]:
    """Requeue jobs whose lease has expired; fail those that kill their workers. Fail jobs past their deadline.

    Every keys.AUDIT_SECONDS jobs are found that another program has removed from the queue (`rq empty`): they go back
    into it, or fail if RQ's record of them is gone. At most 100 of each per call. Every worker calls this at each
    heartbeat; each job is recovered by one of them.
    """
    messages = (requeued("worker_lost"), _worker_lost(), _deadline_exceeded(), _without_id(failure("", JobLost(GONE))))
    found = iter(call(connection, "recover", secrets.token_hex(8), *messages))
    return [
        Recovered(job_id.decode(errors="replace"), outcome.decode())
        for job_id, outcome in zip(found, found, strict=True)
    ]


def expire(connection: Redis, job_id: str) -> bool:
    """Fail a job if its deadline has passed and it has not ended. Return whether it was failed."""
    failed = bool(call(connection, "expire", job_id, secrets.token_hex(8), _deadline_exceeded()))
    if failed:
        fields = {"event": "failed", "code": DeadlineExceeded.code}
        JobLog(log, job_id).info("failed: %s", DeadlineExceeded.code, extra=fields)
    return failed


def failure(job_id: str, error: UpresError) -> Failed:
    """Make the `failed` event of a job from an error."""
    return Failed(job_id=job_id, code=error.code, message=str(error), retryable=error.retryable)


def requeued(reason: Reason) -> str:
    """The `requeued` event as the script expects it: JSON without the job's id."""
    return _without_id(Requeued(job_id="", reason=reason))


def _without_id(event: Event) -> str:
    """The JSON of an event without its `{` and job_id; the script puts them before it, because it finds the job."""
    return event.model_dump_json(exclude={"job_id"}, exclude_none=True)[1:]


def _worker_lost() -> str:
    return _without_id(failure("", WorkerLost(DIED)))


def _deadline_exceeded() -> str:
    return _without_id(failure("", DeadlineExceeded(LATE)))
