"""Tests of leases and of the recovery of lost jobs, by calls to `upres.core.leases` on Redis. No worker runs."""

import time
from typing import Any

import pytest
from redis import Redis

from tests.support.events import RESULT
from tests.support.leasing import WORK, everything, run_out, submit, taken, types, waiting
from upres.core import coalescing, events, keys, leases
from upres.core.leases import Lease
from upres.core.queue import read_message
from upres.core.schema import Cancelled, Failed, Progress, Requeued, Succeeded
from upres.core.script import call


def test_a_popped_job_is_taken_once_and_take_can_be_repeated(isolated_redis: Redis) -> None:
    job_id = submit(isolated_redis)
    assert leases.pop(isolated_redis, 0.1) == job_id
    answer = call(isolated_redis, "take", job_id, "me")
    assert (
        call(isolated_redis, "take", job_id, "me")[0] == answer[0] == b"1"
    )  # redis-py repeats a call when the response was lost
    assert leases.take(isolated_redis, job_id) is None
    assert leases.pop(isolated_redis, 0.1) is None


def test_put_back_returns_a_popped_job_to_the_front_of_the_queue(isolated_redis: Redis) -> None:
    job_id, other = submit(isolated_redis), submit(isolated_redis)
    leases.pop(isolated_redis, 0.1)
    leases.put_back(isolated_redis, job_id)
    leases.put_back(isolated_redis, job_id)
    assert waiting(isolated_redis) == [job_id, other]
    assert isolated_redis.llen(keys.POPPED) == 0


def test_put_back_removes_the_lease_that_recover_gave_to_a_popped_job(isolated_redis: Redis) -> None:
    """`recover` gives a short lease to each popped job, so that it can requeue the job if no worker takes it."""
    job_id = submit(isolated_redis)
    leases.pop(isolated_redis, 0.1)
    leases.recover(isolated_redis)
    leases.put_back(isolated_redis, job_id)
    assert isolated_redis.zscore(keys.LEASES, job_id) is None
    assert leases.recover(isolated_redis) == []
    assert waiting(isolated_redis) == [job_id]


def test_a_lease_contains_the_attempt_the_message_and_the_time_left(isolated_redis: Redis) -> None:
    job_id = submit(isolated_redis)
    lease = taken(isolated_redis)
    assert (lease.job_id, lease.attempt) == (job_id, 1)
    assert read_message(job_id, lease.record).job_id == job_id
    assert 3590 < lease.seconds_left <= 3600


def test_recover_ignores_a_job_whose_expired_lease_was_renewed(isolated_redis: Redis) -> None:
    lease = (submit(isolated_redis), taken(isolated_redis))[1]
    run_out(isolated_redis, lease.job_id)
    assert leases.renew(isolated_redis, [lease]) == set()
    assert leases.recover(isolated_redis) == []


def test_a_job_with_a_holder_cannot_be_taken_by_another_worker(isolated_redis: Redis) -> None:
    lease = (submit(isolated_redis), taken(isolated_redis))[1]
    isolated_redis.rpush(keys.POPPED, lease.job_id)  # an entry that a job with a holder normally does not have
    assert leases.take(isolated_redis, lease.job_id) is None
    assert leases.renew(isolated_redis, [lease]) == set()


def test_the_oldest_dead_letters_are_deleted_above_the_maximum(isolated_redis: Redis) -> None:
    isolated_redis.zadd(
        keys.DEAD, {f"old {number}": time.time() * 1000 - 1000 for number in range(keys.MAX_DEAD_LETTERS)}
    )
    isolated_redis.zadd(keys.DEAD, {"ancient": 1})
    job_id = submit(isolated_redis)
    events.append(
        isolated_redis,
        Failed(job_id=job_id, code="c", message="m", retryable=False),
        taken(isolated_redis).holder,
        dead=True,
    )
    assert isolated_redis.zcard(keys.DEAD) == keys.MAX_DEAD_LETTERS
    assert isolated_redis.zscore(keys.DEAD, "ancient") is None
    assert isolated_redis.zscore(keys.DEAD, job_id) is not None
    assert 0 < isolated_redis.ttl(keys.DEAD) <= keys.EVENTS_SECONDS


def test_a_lost_job_is_requeued_and_its_previous_holder_is_fenced_off(isolated_redis: Redis) -> None:
    job_id = submit(isolated_redis)
    dead = taken(isolated_redis)
    run_out(isolated_redis, job_id)
    assert leases.recover(isolated_redis) == [(job_id, "requeued")]
    assert leases.recover(isolated_redis) == []
    is_fenced_off(isolated_redis, dead)  # even before another worker takes the job
    leases.pop(isolated_redis, 0.1)
    leases.recover(isolated_redis)
    is_fenced_off(isolated_redis, dead)
    alive = leases.take(isolated_redis, job_id)
    assert alive
    assert (dead.attempt, alive.attempt) == (1, 2)
    is_fenced_off(isolated_redis, dead)
    assert leases.renew(isolated_redis, [alive]) == set()
    assert events.append(isolated_redis, Succeeded(job_id=job_id, result=RESULT), alive.holder)
    assert types(isolated_redis, job_id) == ["queued", "requeued", "succeeded"]


def test_expired_leases_can_be_renewed_after_a_pause_of_the_recovery(isolated_redis: Redis) -> None:
    """If Redis is unreachable for longer than a lease, `recover` extends expired leases: the workers may be alive."""
    lease = (submit(isolated_redis), taken(isolated_redis))[1]
    run_out(isolated_redis, lease.job_id)
    isolated_redis.set(keys.LAST_RECOVERY, 1)
    assert leases.recover(isolated_redis) == []
    assert leases.renew(isolated_redis, [lease]) == set()
    assert leases.recover(isolated_redis) == []


def test_lost_jobs_are_requeued_after_a_pause_of_the_recovery(isolated_redis: Redis) -> None:
    lease = (submit(isolated_redis), taken(isolated_redis))[1]
    run_out(isolated_redis, lease.job_id)
    isolated_redis.set(keys.LAST_RECOVERY, 1)
    leases.recover(isolated_redis)
    left = float(isolated_redis.zscore(keys.LEASES, lease.job_id) or 0) / 1000 - time.time()
    assert keys.HEARTBEAT_SECONDS < left <= keys.QUIET_SECONDS
    run_out(isolated_redis, lease.job_id)
    assert leases.recover(isolated_redis) == [(lease.job_id, "requeued")]


@pytest.mark.parametrize("forged", [b"x", b"\xff\xfe", b'"},', b"%1"])
def test_a_forged_job_id_does_not_prevent_the_recovery_of_other_jobs(isolated_redis: Redis, forged: bytes) -> None:
    isolated_redis.set(b"upres:job:" + forged + b":run", "no hash")
    isolated_redis.set(b"upres:job:" + forged + b":events", "no stream")
    isolated_redis.rpush(keys.POPPED, forged)
    isolated_redis.zadd(keys.LEASES, {forged: 0})
    isolated_redis.zadd(keys.DEADLINES, {forged: 0})
    job_id = submit(isolated_redis)
    taken(isolated_redis)
    run_out(isolated_redis, job_id)
    for _ in range(3):
        found = leases.recover(isolated_redis)
        assert not found or (job_id, "requeued") in found
    assert job_id in waiting(isolated_redis)
    assert isolated_redis.zcard(keys.LEASES) == isolated_redis.llen(keys.POPPED) == 0
    assert isolated_redis.zrange(keys.DEADLINES, 0, -1) == [job_id.encode()]


def test_a_popped_job_that_was_not_taken_is_requeued_without_a_death(isolated_redis: Redis) -> None:
    job_id = submit(isolated_redis)
    for _ in range(keys.ATTEMPTS + 1):
        leases.pop(isolated_redis, 0.1)
        assert leases.recover(isolated_redis) == []  # a worker may still take the job
        run_out(isolated_redis, job_id)
        assert leases.recover(isolated_redis) == [(job_id, "requeued")]
    assert taken(isolated_redis).attempt == 1


def test_a_popped_job_cannot_be_taken_after_it_was_requeued(isolated_redis: Redis) -> None:
    job_id = submit(isolated_redis)
    leases.pop(isolated_redis, 0.1)
    leases.recover(isolated_redis)
    run_out(isolated_redis, job_id)
    leases.recover(isolated_redis)
    assert leases.take(isolated_redis, job_id) is None
    assert taken(isolated_redis).attempt == 1


def test_a_job_fails_as_a_dead_letter_after_the_maximum_of_worker_deaths(isolated_redis: Redis) -> None:
    job_id = submit(isolated_redis)
    for attempt in range(1, keys.ATTEMPTS + 1):
        assert taken(isolated_redis).attempt == attempt
        run_out(isolated_redis, job_id)
        recovered = leases.recover(isolated_redis)
    assert recovered == [(job_id, "failed")]
    failed = events.read(isolated_redis, job_id)[-1][1]
    assert isinstance(failed, Failed)
    assert (failed.code, failed.retryable) == ("worker_lost", True)
    assert isolated_redis.zscore(keys.DEAD, job_id) is not None
    record: Any = isolated_redis.hgetall(keys.record(job_id))
    assert read_message(job_id, record).job_id == job_id
    assert not isolated_redis.exists(keys.run(job_id))


def test_give_back_puts_a_job_first_and_counts_a_lost_device_as_a_death(isolated_redis: Redis) -> None:
    job_id, other = submit(isolated_redis), submit(isolated_redis)
    leases.give_back(isolated_redis, taken(isolated_redis), "worker_stopping")
    assert waiting(isolated_redis) == [job_id, other]
    for _ in range(keys.ATTEMPTS):
        leases.give_back(isolated_redis, taken(isolated_redis), "device_lost")
    assert types(isolated_redis, job_id)[-3:] == ["requeued", "requeued", "failed"]
    requeued = [event for _, event in events.read(isolated_redis, job_id) if isinstance(event, Requeued)]
    assert [event.reason for event in requeued] == ["worker_stopping", "device_lost", "device_lost"]
    assert waiting(isolated_redis) == [other]


@pytest.mark.parametrize("where", ["queue", "popped", "leased", "given back"])
def test_cancelling_a_job_deletes_all_its_data_except_its_events(isolated_redis: Redis, where: str) -> None:
    job_id = submit(isolated_redis)
    if where == "popped":
        leases.pop(isolated_redis, 0.1)
    if where in ("leased", "given back"):
        lease = taken(isolated_redis)
    if where == "given back":
        leases.give_back(isolated_redis, lease, "worker_stopping")
    assert events.append(isolated_redis, Cancelled(job_id=job_id))
    left = {keys.events(job_id), keys.LAST_RECOVERY, keys.AUDITED, keys.DEATHS, keys.JOB_COUNTS, "rq:queues"}
    assert everything(isolated_redis) <= left


def test_a_queued_job_fails_when_its_deadline_has_passed(isolated_redis: Redis) -> None:
    job_id = submit(isolated_redis)
    isolated_redis.zadd(keys.DEADLINES, {job_id: 1})
    assert leases.recover(isolated_redis) == [(job_id, "failed")]
    assert leases.recover(isolated_redis) == []
    assert isolated_redis.llen(keys.WAITING) == 0


def test_an_append_repeated_with_the_same_token_adds_one_event(isolated_redis: Redis) -> None:
    job_id = submit(isolated_redis)
    event = Progress(job_id=job_id, stage="fetch", percent=0).model_dump_json()
    first = call(isolated_redis, "append", job_id, "token", "", "progress", event, "")
    assert call(isolated_redis, "append", job_id, "token", "", "progress", event, "") == first
    done = Succeeded(job_id=job_id, result=RESULT).model_dump_json()
    last = call(isolated_redis, "append", job_id, "another", "", "succeeded", done, "")
    assert call(isolated_redis, "append", job_id, "another", "", "succeeded", done, "") == last
    assert types(isolated_redis, job_id) == ["queued", "progress", "succeeded"]


def is_fenced_off(redis: Redis, lease: Lease) -> None:
    """Assert that no operation with this lease has an effect: keys, queue and event types stay the same."""
    before = everything(redis), waiting(redis), types(redis, lease.job_id)
    assert leases.renew(redis, [lease]) == {lease.job_id}
    assert events.append(redis, Succeeded(job_id=lease.job_id, result=RESULT), lease.holder) is None
    leases.give_back(redis, lease, "worker_stopping")
    assert call(redis, "checkpoint", lease.job_id, lease.holder, WORK, "0-8") is None
    assert coalescing.claim(redis, WORK, lease) is None
    assert (everything(redis), waiting(redis), types(redis, lease.job_id)) == before
