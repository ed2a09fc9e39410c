"""Identical work, as Redis sees it: no worker takes part."""

import pytest
from redis import Redis

from tests.support.events import RESULT
from tests.support.leasing import OTHER, WORK, run_out, submit, taken, waiting
from upres.core import coalescing, events, keys, leases
from upres.core.schema import Cancelled, Failed, Succeeded
from upres.core.script import call


def test_identical_work_is_done_once_and_shared(apart: Redis) -> None:
    ids = [submit(apart) for _ in range(4)]
    first, *others = [taken(apart) for _ in ids]
    assert coalescing.claim(apart, WORK, first) == "do it"
    assert [coalescing.claim(apart, WORK, other) for other in others] == ["wait"] * 3
    assert apart.zcard(keys.LEASES) == 1
    assert events.append(apart, Succeeded(job_id=ids[0], result=RESULT), first.holder)
    assert waiting(apart) == ids[1:]
    assert not apart.exists(f"{WORK}:parked")
    again = [taken(apart) for _ in others]
    assert [coalescing.claim(apart, WORK, lease) for lease in again] == [RESULT] * 3
    assert coalescing.claim(apart, WORK, again[0], gone=True) == "do it"
    assert coalescing.claim(apart, WORK, again[1]) == "wait"


@pytest.mark.parametrize("end", [Cancelled, Failed])
def test_when_the_one_that_does_it_ends_otherwise_the_next_does_it(apart: Redis, end: type) -> None:
    ids = [submit(apart) for _ in range(3)]
    first, *others = [taken(apart) for _ in ids]
    for lease in (first, *others):
        coalescing.claim(apart, WORK, lease)
    event = (
        Cancelled(job_id=ids[0]) if end is Cancelled else Failed(job_id=ids[0], code="c", message="m", retryable=True)
    )
    events.append(apart, event)
    assert coalescing.claim(apart, WORK, taken(apart)) == "do it"
    assert coalescing.claim(apart, WORK, taken(apart)) == "wait"


def test_a_dead_worker_under_shared_work_keeps_it(apart: Redis) -> None:
    ids = [submit(apart) for _ in range(2)]
    first, second = [taken(apart) for _ in ids]
    coalescing.claim(apart, WORK, first)
    coalescing.claim(apart, WORK, second)
    run_out(apart, ids[0])
    leases.recover(apart)
    assert coalescing.claim(apart, WORK, taken(apart)) == "do it"


def test_work_that_kills_its_workers_is_not_tried_with_the_next_job(apart: Redis) -> None:
    ids = [submit(apart) for _ in range(3)]
    for lease in [taken(apart) for _ in ids]:
        coalescing.claim(apart, WORK, lease)
    for attempt in range(keys.ATTEMPTS):
        run_out(apart, ids[0])
        leases.recover(apart)
        if attempt < keys.ATTEMPTS - 1:
            assert coalescing.claim(apart, WORK, taken(apart)) == "do it"
    for job_id in ids:
        failed = events.read(apart, job_id)[-1][1]
        assert isinstance(failed, Failed)
        assert (failed.job_id, failed.code) == (job_id, "worker_lost")
        assert apart.zscore(keys.DEAD, job_id) is not None
    assert waiting(apart) == []


def test_an_address_that_delivers_another_image_next_time_strands_and_misleads_nobody(apart: Redis) -> None:
    ids = [submit(apart) for _ in range(2)]
    first, second = [taken(apart) for _ in ids]
    assert coalescing.claim(apart, WORK, first) == "do it"
    assert coalescing.claim(apart, WORK, second) == "wait"
    leases.give_back(apart, first, "worker_stopping")
    first = taken(apart)
    assert coalescing.claim(apart, OTHER, first) == "do it"
    second = taken(apart)  # it was released at once
    assert events.append(apart, Succeeded(job_id=ids[0], result=RESULT), first.holder)
    assert coalescing.claim(apart, WORK, second) == "do it"
    assert coalescing.claim(apart, OTHER, second) == RESULT


def test_two_that_change_places_do_not_wait_for_each_other(apart: Redis) -> None:
    for _ in range(2):
        submit(apart)
    first, second = taken(apart), taken(apart)
    coalescing.claim(apart, WORK, first)
    coalescing.claim(apart, OTHER, second)
    leases.give_back(apart, second, "worker_stopping")
    leases.give_back(apart, first, "worker_stopping")
    first, second = taken(apart), taken(apart)
    assert coalescing.claim(apart, OTHER, first) == "wait"
    assert coalescing.claim(apart, WORK, second) == "do it"
    assert waiting(apart) == [first.job_id]


def test_a_repeated_claim_parks_once(apart: Redis) -> None:
    for _ in range(2):
        submit(apart)
    first, second = taken(apart), taken(apart)
    coalescing.claim(apart, WORK, first)
    arguments = ("claim", WORK, second.job_id, "once", second.holder, '"at":"now"}', "")
    assert call(apart, *arguments) == [b"parked"]
    assert call(apart, *arguments) is None
    assert apart.llen(f"{WORK}:parked") == 1
