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


def test_a_popped_job_is_taken_once_with_what_it_needs(apart: Redis) -> None:
    job_id = submit(apart)
    assert leases.pop(apart, 0.1) == job_id
    answer = call(apart, "take", job_id, "me")
    assert call(apart, "take", job_id, "me")[0] == answer[0] == b"1"  # its answer was lost, and it is asked again
    assert leases.take(apart, job_id) is None
    assert leases.pop(apart, 0.1) is None


def test_a_popped_job_that_nobody_wants_is_the_first_again(apart: Redis) -> None:
    job_id, other = submit(apart), submit(apart)
    leases.pop(apart, 0.1)
    leases.put_back(apart, job_id)
    leases.put_back(apart, job_id)
    assert waiting(apart) == [job_id, other]
    assert apart.llen(keys.POPPED) == 0


def test_a_popped_job_that_somebody_saw_and_nobody_wants_waits_once(apart: Redis) -> None:
    """Whoever looks for lost jobs gives a popped one a lease, which ends when it is put back."""
    job_id = submit(apart)
    leases.pop(apart, 0.1)
    leases.recover(apart)
    leases.put_back(apart, job_id)
    assert apart.zscore(keys.LEASES, job_id) is None
    assert leases.recover(apart) == []
    assert waiting(apart) == [job_id]


def test_what_is_taken_can_be_read(apart: Redis) -> None:
    job_id = submit(apart)
    lease = taken(apart)
    assert (lease.job_id, lease.attempt) == (job_id, 1)
    assert read_message(job_id, lease.record).job_id == job_id
    assert 3590 < lease.seconds_left <= 3600


def test_a_job_whose_worker_lives_is_left_alone(apart: Redis) -> None:
    lease = (submit(apart), taken(apart))[1]
    run_out(apart, lease.job_id)
    assert leases.renew(apart, [lease]) == set()
    assert leases.recover(apart) == []


def test_a_job_that_somebody_has_is_nobody_elses_to_take(apart: Redis) -> None:
    lease = (submit(apart), taken(apart))[1]
    apart.rpush(keys.POPPED, lease.job_id)  # however it came there
    assert leases.take(apart, lease.job_id) is None
    assert leases.renew(apart, [lease]) == set()


def test_dead_letters_are_bounded(apart: Redis) -> None:
    apart.zadd(keys.DEAD, {f"old {number}": time.time() * 1000 - 1000 for number in range(keys.MAX_DEAD_LETTERS)})
    apart.zadd(keys.DEAD, {"ancient": 1})
    job_id = submit(apart)
    events.append(apart, Failed(job_id=job_id, code="c", message="m", retryable=False), taken(apart).holder, dead=True)
    assert apart.zcard(keys.DEAD) == keys.MAX_DEAD_LETTERS
    assert apart.zscore(keys.DEAD, "ancient") is None
    assert apart.zscore(keys.DEAD, job_id) is not None
    assert 0 < apart.ttl(keys.DEAD) <= keys.EVENTS_SECONDS


def test_a_job_whose_worker_died_goes_on_elsewhere_and_the_dead_one_is_fenced_off(apart: Redis) -> None:
    job_id = submit(apart)
    dead = taken(apart)
    run_out(apart, job_id)
    assert leases.recover(apart) == [(job_id, "requeued")]
    assert leases.recover(apart) == []
    is_fenced_off(apart, dead)  # already before anybody takes it
    leases.pop(apart, 0.1)
    leases.recover(apart)
    is_fenced_off(apart, dead)
    alive = leases.take(apart, job_id)
    assert alive
    assert (dead.attempt, alive.attempt) == (1, 2)
    is_fenced_off(apart, dead)
    assert leases.renew(apart, [alive]) == set()
    assert events.append(apart, Succeeded(job_id=job_id, result=RESULT), alive.holder)
    assert types(apart, job_id) == ["queued", "requeued", "succeeded"]


def test_when_nobody_could_look_the_living_are_given_time(apart: Redis) -> None:
    """Redis was away for longer than a lease: no worker died."""
    lease = (submit(apart), taken(apart))[1]
    run_out(apart, lease.job_id)
    apart.set(keys.LOOKED, 1)
    assert leases.recover(apart) == []
    assert leases.renew(apart, [lease]) == set()
    assert leases.recover(apart) == []


def test_the_dead_are_found_even_when_nobody_looked(apart: Redis) -> None:
    lease = (submit(apart), taken(apart))[1]
    run_out(apart, lease.job_id)
    apart.set(keys.LOOKED, 1)
    leases.recover(apart)
    left = float(apart.zscore(keys.LEASES, lease.job_id) or 0) / 1000 - time.time()
    assert keys.BEAT_SECONDS < left <= keys.QUIET_SECONDS
    run_out(apart, lease.job_id)
    assert leases.recover(apart) == [(lease.job_id, "requeued")]


@pytest.mark.parametrize("forged", [b"x", b"\xff\xfe", b'"},', b"%1"])
def test_a_forged_entry_stops_nobodys_recovery(apart: Redis, forged: bytes) -> None:
    apart.set(b"upres:job:" + forged + b":run", "no hash")
    apart.set(b"upres:job:" + forged + b":events", "no stream")
    apart.rpush(keys.POPPED, forged)
    apart.zadd(keys.LEASES, {forged: 0})
    apart.zadd(keys.DEADLINES, {forged: 0})
    job_id = submit(apart)
    taken(apart)
    run_out(apart, job_id)
    for _ in range(3):
        found = leases.recover(apart)
        assert not found or (job_id, "requeued") in found
    assert job_id in waiting(apart)
    assert apart.zcard(keys.LEASES) == apart.llen(keys.POPPED) == 0
    assert apart.zrange(keys.DEADLINES, 0, -1) == [job_id.encode()]


def test_a_job_that_was_popped_and_never_taken_comes_back_without_a_death(apart: Redis) -> None:
    job_id = submit(apart)
    for _ in range(keys.ATTEMPTS + 1):
        leases.pop(apart, 0.1)
        assert leases.recover(apart) == []  # the worker may be about to take it
        run_out(apart, job_id)
        assert leases.recover(apart) == [(job_id, "requeued")]
    assert taken(apart).attempt == 1


def test_a_worker_that_took_too_long_to_take_finds_it_gone(apart: Redis) -> None:
    job_id = submit(apart)
    leases.pop(apart, 0.1)
    leases.recover(apart)
    run_out(apart, job_id)
    leases.recover(apart)
    assert leases.take(apart, job_id) is None
    assert taken(apart).attempt == 1


def test_three_dead_workers_make_a_dead_letter_that_can_be_replayed(apart: Redis) -> None:
    job_id = submit(apart)
    for attempt in range(1, keys.ATTEMPTS + 1):
        assert taken(apart).attempt == attempt
        run_out(apart, job_id)
        recovered = leases.recover(apart)
    assert recovered == [(job_id, "failed")]
    failed = events.read(apart, job_id)[-1][1]
    assert isinstance(failed, Failed)
    assert (failed.code, failed.retryable) == ("worker_lost", True)
    assert apart.zscore(keys.DEAD, job_id) is not None
    record: Any = apart.hgetall(keys.record(job_id))
    assert read_message(job_id, record).job_id == job_id
    assert not apart.exists(keys.run(job_id))


def test_a_job_that_is_given_back_comes_first_and_a_lost_device_counts_as_a_death(apart: Redis) -> None:
    job_id, other = submit(apart), submit(apart)
    leases.give_back(apart, taken(apart), "worker_stopping")
    assert waiting(apart) == [job_id, other]
    for _ in range(keys.ATTEMPTS):
        leases.give_back(apart, taken(apart), "device_lost")
    assert types(apart, job_id)[-3:] == ["requeued", "requeued", "failed"]
    requeued = [event for _, event in events.read(apart, job_id) if isinstance(event, Requeued)]
    assert [event.reason for event in requeued] == ["worker_stopping", "device_lost", "device_lost"]
    assert waiting(apart) == [other]


@pytest.mark.parametrize("where", ["queue", "popped", "leased", "given back"])
def test_cancelling_takes_a_job_out_of_wherever_it_is(apart: Redis, where: str) -> None:
    job_id = submit(apart)
    if where == "popped":
        leases.pop(apart, 0.1)
    if where in ("leased", "given back"):
        lease = taken(apart)
    if where == "given back":
        leases.give_back(apart, lease, "worker_stopping")
    assert events.append(apart, Cancelled(job_id=job_id))
    assert everything(apart) <= {keys.events(job_id), keys.LOOKED, keys.ENDED, "rq:queues"}


def test_a_deadline_ends_a_job_that_nobody_takes(apart: Redis) -> None:
    job_id = submit(apart)
    apart.zadd(keys.DEADLINES, {job_id: 1})
    assert leases.recover(apart) == [(job_id, "failed")]
    assert leases.recover(apart) == []
    assert apart.llen(keys.WAITING) == 0


def test_a_repeated_append_is_written_once(apart: Redis) -> None:
    job_id = submit(apart)
    event = Progress(job_id=job_id, stage="fetch", percent=0).model_dump_json()
    first = call(apart, "append", job_id, "token", "", "progress", event, "")
    assert call(apart, "append", job_id, "token", "", "progress", event, "") == first
    done = Succeeded(job_id=job_id, result=RESULT).model_dump_json()
    last = call(apart, "append", job_id, "another", "", "succeeded", done, "")
    assert call(apart, "append", job_id, "another", "", "succeeded", done, "") == last
    assert types(apart, job_id) == ["queued", "progress", "succeeded"]


def is_fenced_off(redis: Redis, lease: Lease) -> None:
    """Nothing that the holder says or does has any effect."""
    before = everything(redis), waiting(redis), types(redis, lease.job_id)
    assert leases.renew(redis, [lease]) == {lease.job_id}
    assert events.append(redis, Succeeded(job_id=lease.job_id, result=RESULT), lease.holder) is None
    leases.give_back(redis, lease, "worker_stopping")
    assert call(redis, "checkpoint", lease.job_id, lease.holder, WORK, "0-8") is None
    assert coalescing.claim(redis, WORK, lease) is None
    assert (everything(redis), waiting(redis), types(redis, lease.job_id)) == before
