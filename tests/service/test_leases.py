"""Leases and recovery, as Redis sees them: no worker takes part."""

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


def test_a_popped_job_is_taken_once_with_what_it_needs(isolated_redis: Redis) -> None:
    job_id = submit(isolated_redis)
    assert leases.pop(isolated_redis, 0.1) == job_id
    answer = call(isolated_redis, "take", job_id, "me")
    assert (
        call(isolated_redis, "take", job_id, "me")[0] == answer[0] == b"1"
    )  # its answer was lost, and it is asked again
    assert leases.take(isolated_redis, job_id) is None
    assert leases.pop(isolated_redis, 0.1) is None


def test_a_popped_job_that_nobody_wants_is_the_first_again(isolated_redis: Redis) -> None:
    job_id, other = submit(isolated_redis), submit(isolated_redis)
    leases.pop(isolated_redis, 0.1)
    leases.put_back(isolated_redis, job_id)
    leases.put_back(isolated_redis, job_id)
    assert waiting(isolated_redis) == [job_id, other]
    assert isolated_redis.llen(keys.POPPED) == 0


def test_a_popped_job_that_somebody_saw_and_nobody_wants_waits_once(isolated_redis: Redis) -> None:
    """Whoever looks for lost jobs gives a popped one a lease, which ends when it is put back."""
    job_id = submit(isolated_redis)
    leases.pop(isolated_redis, 0.1)
    leases.recover(isolated_redis)
    leases.put_back(isolated_redis, job_id)
    assert isolated_redis.zscore(keys.LEASES, job_id) is None
    assert leases.recover(isolated_redis) == []
    assert waiting(isolated_redis) == [job_id]


def test_what_is_taken_can_be_read(isolated_redis: Redis) -> None:
    job_id = submit(isolated_redis)
    lease = taken(isolated_redis)
    assert (lease.job_id, lease.attempt) == (job_id, 1)
    assert read_message(job_id, lease.record).job_id == job_id
    assert 3590 < lease.seconds_left <= 3600


def test_a_job_whose_worker_lives_is_left_alone(isolated_redis: Redis) -> None:
    lease = (submit(isolated_redis), taken(isolated_redis))[1]
    run_out(isolated_redis, lease.job_id)
    assert leases.renew(isolated_redis, [lease]) == set()
    assert leases.recover(isolated_redis) == []


def test_a_job_that_somebody_has_is_nobody_elses_to_take(isolated_redis: Redis) -> None:
    lease = (submit(isolated_redis), taken(isolated_redis))[1]
    isolated_redis.rpush(keys.POPPED, lease.job_id)  # however it came there
    assert leases.take(isolated_redis, lease.job_id) is None
    assert leases.renew(isolated_redis, [lease]) == set()


def test_dead_letters_are_bounded(isolated_redis: Redis) -> None:
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


def test_a_job_whose_worker_died_goes_on_elsewhere_and_the_dead_one_is_fenced_off(isolated_redis: Redis) -> None:
    job_id = submit(isolated_redis)
    dead = taken(isolated_redis)
    run_out(isolated_redis, job_id)
    assert leases.recover(isolated_redis) == [(job_id, "requeued")]
    assert leases.recover(isolated_redis) == []
    is_fenced_off(isolated_redis, dead)  # already before anybody takes it
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


def test_when_nobody_could_look_the_living_are_given_time(isolated_redis: Redis) -> None:
    """Redis was away for longer than a lease: no worker died."""
    lease = (submit(isolated_redis), taken(isolated_redis))[1]
    run_out(isolated_redis, lease.job_id)
    isolated_redis.set(keys.LAST_RECOVERY, 1)
    assert leases.recover(isolated_redis) == []
    assert leases.renew(isolated_redis, [lease]) == set()
    assert leases.recover(isolated_redis) == []


def test_the_dead_are_found_even_when_nobody_looked(isolated_redis: Redis) -> None:
    lease = (submit(isolated_redis), taken(isolated_redis))[1]
    run_out(isolated_redis, lease.job_id)
    isolated_redis.set(keys.LAST_RECOVERY, 1)
    leases.recover(isolated_redis)
    left = float(isolated_redis.zscore(keys.LEASES, lease.job_id) or 0) / 1000 - time.time()
    assert keys.HEARTBEAT_SECONDS < left <= keys.QUIET_SECONDS
    run_out(isolated_redis, lease.job_id)
    assert leases.recover(isolated_redis) == [(lease.job_id, "requeued")]


@pytest.mark.parametrize("forged", [b"x", b"\xff\xfe", b'"},', b"%1"])
def test_a_forged_entry_stops_nobodys_recovery(isolated_redis: Redis, forged: bytes) -> None:
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


def test_a_job_that_was_popped_and_never_taken_comes_back_without_a_death(isolated_redis: Redis) -> None:
    job_id = submit(isolated_redis)
    for _ in range(keys.ATTEMPTS + 1):
        leases.pop(isolated_redis, 0.1)
        assert leases.recover(isolated_redis) == []  # the worker may be about to take it
        run_out(isolated_redis, job_id)
        assert leases.recover(isolated_redis) == [(job_id, "requeued")]
    assert taken(isolated_redis).attempt == 1


def test_a_worker_that_took_too_long_to_take_finds_it_gone(isolated_redis: Redis) -> None:
    job_id = submit(isolated_redis)
    leases.pop(isolated_redis, 0.1)
    leases.recover(isolated_redis)
    run_out(isolated_redis, job_id)
    leases.recover(isolated_redis)
    assert leases.take(isolated_redis, job_id) is None
    assert taken(isolated_redis).attempt == 1


def test_three_dead_workers_make_a_dead_letter_that_can_be_replayed(isolated_redis: Redis) -> None:
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


def test_a_job_that_is_given_back_comes_first_and_a_lost_device_counts_as_a_death(isolated_redis: Redis) -> None:
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
def test_cancelling_takes_a_job_out_of_wherever_it_is(isolated_redis: Redis, where: str) -> None:
    job_id = submit(isolated_redis)
    if where == "popped":
        leases.pop(isolated_redis, 0.1)
    if where in ("leased", "given back"):
        lease = taken(isolated_redis)
    if where == "given back":
        leases.give_back(isolated_redis, lease, "worker_stopping")
    assert events.append(isolated_redis, Cancelled(job_id=job_id))
    assert everything(isolated_redis) <= {keys.events(job_id), keys.LAST_RECOVERY, keys.JOB_COUNTS, "rq:queues"}


def test_a_deadline_ends_a_job_that_nobody_takes(isolated_redis: Redis) -> None:
    job_id = submit(isolated_redis)
    isolated_redis.zadd(keys.DEADLINES, {job_id: 1})
    assert leases.recover(isolated_redis) == [(job_id, "failed")]
    assert leases.recover(isolated_redis) == []
    assert isolated_redis.llen(keys.WAITING) == 0


def test_a_repeated_append_is_written_once(isolated_redis: Redis) -> None:
    job_id = submit(isolated_redis)
    event = Progress(job_id=job_id, stage="fetch", percent=0).model_dump_json()
    first = call(isolated_redis, "append", job_id, "token", "", "progress", event, "")
    assert call(isolated_redis, "append", job_id, "token", "", "progress", event, "") == first
    done = Succeeded(job_id=job_id, result=RESULT).model_dump_json()
    last = call(isolated_redis, "append", job_id, "another", "", "succeeded", done, "")
    assert call(isolated_redis, "append", job_id, "another", "", "succeeded", done, "") == last
    assert types(isolated_redis, job_id) == ["queued", "progress", "succeeded"]


def is_fenced_off(redis: Redis, lease: Lease) -> None:
    """Nothing that the holder says or does has any effect."""
    before = everything(redis), waiting(redis), types(redis, lease.job_id)
    assert leases.renew(redis, [lease]) == {lease.job_id}
    assert events.append(redis, Succeeded(job_id=lease.job_id, result=RESULT), lease.holder) is None
    leases.give_back(redis, lease, "worker_stopping")
    assert call(redis, "checkpoint", lease.job_id, lease.holder, WORK, "0-8") is None
    assert coalescing.claim(redis, WORK, lease) is None
    assert (everything(redis), waiting(redis), types(redis, lease.job_id)) == before
