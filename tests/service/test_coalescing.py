"""Tests of shared work of identical jobs in Redis. The tests claim the work themselves; no worker runs."""

import pytest
from redis import Redis

from tests.support.events import RESULT
from tests.support.leasing import OTHER, WORK, run_out, submit, taken, waiting
from upres.core import coalescing, events, keys, leases
from upres.core.schema import Cancelled, Failed, Succeeded
from upres.core.script import call


def test_identical_work_is_done_once_and_its_result_is_shared(isolated_redis: Redis) -> None:
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
def test_after_a_cancel_or_failure_a_parked_job_does_the_work(isolated_redis: Redis, end: type) -> None:
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


def test_shared_work_runs_again_after_its_worker_dies(isolated_redis: Redis) -> None:
    ids = [submit(isolated_redis) for _ in range(2)]
    first, second = [taken(isolated_redis) for _ in ids]
    coalescing.claim(isolated_redis, WORK, first)
    coalescing.claim(isolated_redis, WORK, second)
    run_out(isolated_redis, ids[0])
    leases.recover(isolated_redis)
    assert coalescing.claim(isolated_redis, WORK, taken(isolated_redis)) == "run"


def test_parked_jobs_fail_too_when_their_work_kills_its_workers(isolated_redis: Redis) -> None:
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


def test_parked_jobs_are_released_if_a_retry_fetches_another_image(isolated_redis: Redis) -> None:
    ids = [submit(isolated_redis) for _ in range(2)]
    first, second = [taken(isolated_redis) for _ in ids]
    assert coalescing.claim(isolated_redis, WORK, first) == "run"
    assert coalescing.claim(isolated_redis, WORK, second) == "parked"
    leases.give_back(isolated_redis, first, "worker_stopping")
    first = taken(isolated_redis)
    assert coalescing.claim(isolated_redis, OTHER, first) == "run"
    second = taken(isolated_redis)  # the second job was released when the first claimed other work
    assert events.append(isolated_redis, Succeeded(job_id=ids[0], result=RESULT), first.holder)
    assert coalescing.claim(isolated_redis, WORK, second) == "run"
    assert coalescing.claim(isolated_redis, OTHER, second) == RESULT


def test_two_jobs_that_swap_their_work_do_not_wait_for_each_other(isolated_redis: Redis) -> None:
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


def test_a_repeated_claim_parks_the_job_only_once(isolated_redis: Redis) -> None:
    for _ in range(2):
        submit(isolated_redis)
    first, second = taken(isolated_redis), taken(isolated_redis)
    coalescing.claim(isolated_redis, WORK, first)
    arguments = ("claim", WORK, second.job_id, "once", second.holder, '"at":"now"}', "")
    assert call(isolated_redis, *arguments) == [b"parked"]
    assert call(isolated_redis, *arguments) is None
    assert isolated_redis.llen(f"{WORK}:parked") == 1
