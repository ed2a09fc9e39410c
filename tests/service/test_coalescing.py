"""Identical work, as Redis sees it: no worker takes part."""

import pytest
from redis import Redis

from tests.support.events import RESULT
from tests.support.leasing import OTHER, WORK, run_out, submit, taken, waiting
from upres.core import coalescing, events, keys, leases
from upres.core.schema import Cancelled, Failed, Succeeded
from upres.core.script import call


def test_identical_work_is_done_once_and_shared(isolated_redis: Redis) -> None:
    ids = [submit(isolated_redis) for _ in range(4)]
    first, *others = [taken(isolated_redis) for _ in ids]
    assert coalescing.claim(isolated_redis, WORK, first) == "run"
    assert [coalescing.claim(isolated_redis, WORK, other) for other in others] == ["parked"] * 3
    assert isolated_redis.zcard(keys.LEASES) == 1
    assert events.append(isolated_redis, Succeeded(job_id=ids[0], result=RESULT), first.holder)
    assert waiting(isolated_redis) == ids[1:]
    assert not isolated_redis.exists(f"{WORK}:parked")
    again = [taken(isolated_redis) for _ in others]
    assert [coalescing.claim(isolated_redis, WORK, lease) for lease in again] == [RESULT] * 3
    assert coalescing.claim(isolated_redis, WORK, again[0], gone=True) == "run"
    assert coalescing.claim(isolated_redis, WORK, again[1]) == "parked"


@pytest.mark.parametrize("end", [Cancelled, Failed])
def test_when_the_one_that_does_it_ends_otherwise_the_next_does_it(isolated_redis: Redis, end: type) -> None:
    ids = [submit(isolated_redis) for _ in range(3)]
    first, *others = [taken(isolated_redis) for _ in ids]
    for lease in (first, *others):
        coalescing.claim(isolated_redis, WORK, lease)
    event = (
        Cancelled(job_id=ids[0]) if end is Cancelled else Failed(job_id=ids[0], code="c", message="m", retryable=True)
    )
    events.append(isolated_redis, event)
    assert coalescing.claim(isolated_redis, WORK, taken(isolated_redis)) == "run"
    assert coalescing.claim(isolated_redis, WORK, taken(isolated_redis)) == "parked"


def test_a_dead_worker_under_shared_work_keeps_it(isolated_redis: Redis) -> None:
    ids = [submit(isolated_redis) for _ in range(2)]
    first, second = [taken(isolated_redis) for _ in ids]
    coalescing.claim(isolated_redis, WORK, first)
    coalescing.claim(isolated_redis, WORK, second)
    run_out(isolated_redis, ids[0])
    leases.recover(isolated_redis)
    assert coalescing.claim(isolated_redis, WORK, taken(isolated_redis)) == "run"


def test_work_that_kills_its_workers_is_not_tried_with_the_next_job(isolated_redis: Redis) -> None:
    ids = [submit(isolated_redis) for _ in range(3)]
    for lease in [taken(isolated_redis) for _ in ids]:
        coalescing.claim(isolated_redis, WORK, lease)
    for attempt in range(keys.ATTEMPTS):
        run_out(isolated_redis, ids[0])
        leases.recover(isolated_redis)
        if attempt < keys.ATTEMPTS - 1:
            assert coalescing.claim(isolated_redis, WORK, taken(isolated_redis)) == "run"
    for job_id in ids:
        failed = events.read(isolated_redis, job_id)[-1][1]
        assert isinstance(failed, Failed)
        assert (failed.job_id, failed.code) == (job_id, "worker_lost")
        assert isolated_redis.zscore(keys.DEAD, job_id) is not None
    assert waiting(isolated_redis) == []


def test_an_address_that_delivers_another_image_next_time_strands_and_misleads_nobody(isolated_redis: Redis) -> None:
    ids = [submit(isolated_redis) for _ in range(2)]
    first, second = [taken(isolated_redis) for _ in ids]
    assert coalescing.claim(isolated_redis, WORK, first) == "run"
    assert coalescing.claim(isolated_redis, WORK, second) == "parked"
    leases.give_back(isolated_redis, first, "worker_stopping")
    first = taken(isolated_redis)
    assert coalescing.claim(isolated_redis, OTHER, first) == "run"
    second = taken(isolated_redis)  # it was released at once
    assert events.append(isolated_redis, Succeeded(job_id=ids[0], result=RESULT), first.holder)
    assert coalescing.claim(isolated_redis, WORK, second) == "run"
    assert coalescing.claim(isolated_redis, OTHER, second) == RESULT


def test_two_that_change_places_do_not_wait_for_each_other(isolated_redis: Redis) -> None:
    for _ in range(2):
        submit(isolated_redis)
    first, second = taken(isolated_redis), taken(isolated_redis)
    coalescing.claim(isolated_redis, WORK, first)
    coalescing.claim(isolated_redis, OTHER, second)
    leases.give_back(isolated_redis, second, "worker_stopping")
    leases.give_back(isolated_redis, first, "worker_stopping")
    first, second = taken(isolated_redis), taken(isolated_redis)
    assert coalescing.claim(isolated_redis, OTHER, first) == "parked"
    assert coalescing.claim(isolated_redis, WORK, second) == "run"
    assert waiting(isolated_redis) == [first.job_id]


def test_a_repeated_claim_parks_once(isolated_redis: Redis) -> None:
    for _ in range(2):
        submit(isolated_redis)
    first, second = taken(isolated_redis), taken(isolated_redis)
    coalescing.claim(isolated_redis, WORK, first)
    arguments = ("claim", WORK, second.job_id, "once", second.holder, '"at":"now"}', "")
    assert call(isolated_redis, *arguments) == [b"parked"]
    assert call(isolated_redis, *arguments) is None
    assert isolated_redis.llen(f"{WORK}:parked") == 1
