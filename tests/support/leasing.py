"""Helpers for jobs and leases in a Redis database that no worker uses."""

import secrets
from datetime import timedelta
from typing import Any, cast

from redis import Redis

from tests.support.paths import MODEL
from tests.support.waiting import wait_until
from upres.core import events, keys, leases, registry
from upres.core.enqueue import enqueue
from upres.core.job_message import JobMessage
from upres.core.leases import Lease
from upres.core.queue import open_queue, read_message
from upres.core.schema import Failed, now

WORK, OTHER = "upres:work:x", "upres:work:y"


def empty(redis: Redis) -> None:
    """Empty the database, then run the recovery of lost jobs once, as a running worker would have done."""
    redis.flushdb()
    leases.recover(redis)


def message(job_id: str, **changed: Any) -> dict[str, Any]:
    """The job message that the function would add to the queue."""
    fields: dict[str, Any] = {
        "image_key": keys.upload(job_id),
        "upscale_factor": 4,
        "model": "faithful",
        "model_version": "1",
        "model_digest": registry.digest((MODEL / "manifest.json").read_bytes()),
        "output_format": "auto",
        "submitted_at": now(),
        "deadline": now() + timedelta(hours=1),
    }
    return JobMessage(job_id=job_id, **{**fields, **changed}).model_dump(mode="json")


def submit(redis: Redis, **changed: Any) -> str:
    job_id = secrets.token_hex(16)
    return enqueue(open_queue(redis), JobMessage.model_validate(message(job_id, **changed))).job_id


def taken(redis: Redis, alone: bool = True) -> Lease:
    """Take the next job, as a worker that has no other job, or others too."""
    job_id = leases.pop(redis, 0.1)
    assert job_id
    lease = leases.take(redis, job_id)
    assert lease
    if alone:
        leases.is_alone(redis, lease)
    return lease


def run_out(redis: Redis, job_id: str) -> None:
    """Let the lease of the job expire, as if its worker had not renewed it."""
    redis.zadd(keys.LEASES, {job_id: 1})


def waiting(redis: Redis) -> list[str]:
    return [job_id.decode() for job_id in cast("list[bytes]", redis.lrange(keys.WAITING, 0, -1))]


def everything(redis: Redis) -> set[str]:
    return {key.decode() for key in cast("list[bytes]", redis.keys("*"))}


def types(redis: Redis, job_id: str) -> list[str]:
    return [event.type for _, event in events.read(redis, job_id)]


def image_key(redis: Redis, job_id: str) -> str:
    """The store key of the image of a queued job."""
    record = cast("dict[bytes, bytes]", redis.hgetall(keys.record(job_id)))
    return read_message(job_id, record).image_key or ""


def ended(redis: Redis, job_id: str) -> Failed:
    """Wait until the job has ended and return its failed event."""
    wait_until(lambda: bool(received := events.read(redis, job_id)) and events.is_terminal(received[-1][1]))
    _, event = events.read(redis, job_id)[-1]
    assert isinstance(event, Failed)
    return event
