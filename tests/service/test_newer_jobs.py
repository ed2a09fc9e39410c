"""Jobs that a newer release accepted: older workers leave them to newer ones."""

import hashlib
import json
import secrets
import threading
import time
import zlib
from pathlib import Path
from typing import cast

import pytest
from redis import Redis

from tests.support.events import queued
from tests.support.leasing import message, submit, taken, waiting
from tests.support.pushing import Pushed
from tests.support.waiting import wait_until
from upres.client import Client
from upres.core import deadletters, events, keys, leases, model_uses
from upres.core.errors import JobRefused, WorkerOutdated
from upres.core.leases import Lease
from upres.core.queue import open_queue, read_message
from upres.core.schema import Cancelled, Failed, Requeued
from upres.core.script import call
from upres.core.storage import Store
from upres.embedded.stack import Local
from upres.worker.circuit_breaker import CircuitBreaker
from upres.worker.context import WorkerContext
from upres.worker.in_flight import InFlightJobs
from upres.worker.outage_log import OutageLog
from upres.worker.slots import SharedBySlots, Slot


def enqueue_newer(redis: Redis, **changed: object) -> str:
    """Enqueue a job with an option that this release does not know."""
    job_id = secrets.token_hex(16)
    fields = {**message(job_id), **(changed or {"remove_grain": True})}
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


def test_a_job_that_is_cancelled_while_a_worker_looks_at_it_is_not_told_to_wait(
    local: Local, isolated_redis: Redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = enqueue_newer(isolated_redis)
    lease = taken(isolated_redis)
    error = refusal(lease)
    events.append(isolated_redis, Cancelled(job_id=job_id))
    let_go: list[Lease] = []
    monkeypatch.setattr(leases, "let_go", lambda _, lease: let_go.append(lease))
    shared = SharedBySlots(InFlightJobs(), CircuitBreaker(), OutageLog("Redis"), threading.Lock())
    slot = Slot("slot", local.settings, shared, cast(WorkerContext, None))
    slot._connection = isolated_redis
    slot._pass_on(lease, error)
    assert let_go == [lease]
    assert "goes back into the queue" not in caplog.text
    assert waiting(isolated_redis) == []


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


def test_a_dead_letter_of_a_newer_release_can_be_shown(local: Local, isolated_redis: Redis) -> None:
    job_id = enqueue_newer(isolated_redis)
    lease = taken(isolated_redis)
    events.append(isolated_redis, leases.failure(job_id, refusal(lease)), lease.holder, dead=True)
    with pytest.raises(WorkerOutdated):
        deadletters.replay(isolated_redis, job_id)
    assert deadletters.fields_of(isolated_redis, job_id)["remove_grain"] is True


def test_a_version_that_a_job_of_a_newer_release_waits_for_is_in_use(isolated_redis: Redis) -> None:
    enqueue_newer(isolated_redis, remove_grain=True, model="shared", model_version="7")
    with isolated_redis.pipeline() as pipeline:
        [job_id] = waiting(isolated_redis)
        call(pipeline, "begin", job_id, "once", queued(job_id).model_dump_json(), 60, "shared", "", "")
        pipeline.execute()
    assert model_uses.in_redis(isolated_redis, "shared") == {"7": ["a job that has not ended needs it"]}


def test_a_job_whose_model_needs_a_newer_release_waits_for_a_newer_worker(
    local: Local, client: Client, png: bytes, store: Store, tmp_path: Path
) -> None:
    """The version was pushed by a newer release, and an older worker takes the job that asks for it."""
    name = f"newer-{secrets.token_hex(3)}"
    pushed = Pushed(store, name, tmp_path)
    pushed.push("1")
    manifest = json.loads(store.get(keys.model(name, "1", "manifest.json"))) | {"schema_version": 99}
    pushed.put("manifest.json", json.dumps(manifest).encode())
    digest = hashlib.sha256(json.dumps(manifest).encode()).hexdigest()
    with Redis.from_url(local.settings.redis_url) as redis:
        fields = {"model": name, "model_version": "1", "model_digest": digest, "image_url": None}
        job_id = enqueue_newer(redis, **fields)
        try:
            wait_until(lambda: "requeued" in [event.type for _, event in events.read(redis, job_id)])
            assert client.upscale(png, 2).result.width
            told = [event.type for _, event in events.read(redis, job_id)]
            assert told == ["queued", "started", "progress", "requeued"], "it is tried again without an event"
        finally:
            client.cancel(job_id)
