"""Jobs that a newer release accepted: older workers leave them to newer ones."""

import json
import secrets
import time
import zlib

import pytest
from redis import Redis

from tests.support.events import queued
from tests.support.leasing import message, submit, taken, waiting
from tests.support.waiting import wait_until
from upres.client import Client
from upres.core import deadletters, events, keys, leases
from upres.core.errors import JobRefused, WorkerOutdated
from upres.core.leases import Lease
from upres.core.queue import open_queue, read_message
from upres.core.schema import Failed, Requeued
from upres.embedded.stack import Local


def enqueue_newer(redis: Redis) -> str:
    """Enqueue a job with an option that this release does not know."""
    job_id = secrets.token_hex(16)
    fields = {**message(job_id), "remove_grain": True}
    with redis.pipeline() as pipeline:
        events.append(pipeline, queued(job_id))
        pipeline.execute()
    open_queue(redis).enqueue_job(open_queue(redis).create_job(keys.JOB_FUNCTION, args=(fields,), job_id=job_id))
    return job_id


def refusal(lease: Lease) -> WorkerOutdated:
    with pytest.raises(WorkerOutdated, match="asks for remove_grain, which the workers are too old to know") as error:
        read_message(lease.job_id, lease.record)
    return error.value


def test_the_job_goes_to_the_back_of_the_queue_and_counts_no_attempt(isolated_redis: Redis) -> None:
    job_id = enqueue_newer(isolated_redis)
    lease = taken(isolated_redis)
    behind = submit(isolated_redis)
    assert leases.pass_on(isolated_redis, lease, refusal(lease)) == "requeued"
    assert waiting(isolated_redis) == [behind, job_id]
    assert taken(isolated_redis).job_id == behind
    for _ in range(3):
        lease = taken(isolated_redis)
        assert (lease.job_id, lease.attempt, lease.deaths) == (job_id, 1, 0)
        assert leases.pass_on(isolated_redis, lease, refusal(lease)) == "requeued"
    told = [event.type for _, event in events.read(isolated_redis, job_id)]
    assert told == ["queued", "requeued"], "workers that look at it again and again say so once"


def test_a_job_that_no_worker_knows_becomes_a_dead_letter_that_says_why(isolated_redis: Redis) -> None:
    job_id = enqueue_newer(isolated_redis)
    lease = taken(isolated_redis)
    assert leases.pass_on(isolated_redis, lease, refusal(lease)) == "requeued"
    lease = taken(isolated_redis)
    began = int(time.time() * 1000) - keys.OUTDATED_SECONDS * 1000 - 1000
    isolated_redis.hset(f"upres:job:{job_id}:run", "outdated_since", str(began))
    assert leases.pass_on(isolated_redis, lease, refusal(lease)) == "failed"
    assert leases.pass_on(isolated_redis, lease, refusal(lease)) is None, "it is not held any more"
    last = events.read(isolated_redis, job_id)[-1][1]
    assert isinstance(last, Failed)
    assert (last.code, last.retryable) == ("worker_outdated", True)
    assert [letter.job_id for letter in deadletters.listing(isolated_redis)] == [job_id]


@pytest.mark.parametrize(
    ("changed", "outdated"),
    [
        ({"output_format": "jpeg2000"}, True),
        ({"frames": "odd"}, True),
        ({"frames": "odd", "newer": 1}, True),
        ({"model": 5}, False),
        ({"model": 5, "newer": 1}, False),
        ({"upscale_factor": "x"}, False),
    ],
)
def test_only_what_a_newer_release_may_have_written_waits(changed: dict[str, object], outdated: bool) -> None:
    packed = zlib.compress(json.dumps([keys.JOB_FUNCTION, None, [{**message("0" * 32), **changed}], {}]).encode())
    with pytest.raises(WorkerOutdated if outdated else JobRefused):
        read_message("0" * 32, {b"data": packed})


def test_a_worker_does_other_jobs_while_one_waits_for_a_newer_worker(local: Local, client: Client, png: bytes) -> None:
    with Redis.from_url(local.settings.redis_url) as redis:
        job_id = enqueue_newer(redis)
        try:
            wait_until(lambda: len(events.read(redis, job_id)) > 1)
            assert client.upscale(png, 2).result.width
            last = events.read(redis, job_id)[-1][1]
            assert isinstance(last, Requeued)
            assert last.reason == "worker_outdated"
        finally:
            client.cancel(job_id)
        wait_until(lambda: redis.lpos(keys.WAITING, job_id) is None)
