"""Tests of the counts that the rule of a canary decides by: every end of a job on the canary, whoever tells it."""

import secrets
from typing import Any, cast

import pytest
from redis import Redis

from tests.support.events import RESULT
from tests.support.leasing import WORK, run_out, submit, taken
from upres.core import coalescing, events, keys, leases, served_models
from upres.core.errors import (
    DeviceLost,
    ModelUnavailable,
    OutputNotFinite,
    StoreUnavailable,
    TimedOut,
    TruncatedImage,
    UndecodableImage,
    UpresError,
    UrlUnreachable,
    WorkerUnavailable,
)
from upres.core.leases import Lease
from upres.core.manifest import Rule
from upres.core.schema import Cancelled, Succeeded
from upres.core.served_models import ModelRef, ServedModel

STABLE, CANARY = "1" * 64, "2" * 64


class Canary:
    """A model with a stable version and a canary, as workers publish it."""

    def __init__(self, redis: Redis, **changed: Any) -> None:
        self.redis, self.name, self.run_id = redis, f"m-{secrets.token_hex(3)}", secrets.token_hex(4)
        refs = {
            label: ModelRef(version=digest[0], digest=digest, factors=(4,))
            for label, digest in (("stable", STABLE), ("canary", CANARY))
        }
        fields = {"labels": refs, "rule": Rule(jobs=10, most_failed_percent=10), "canary_run_id": self.run_id}
        served_models.publish(redis, self.name, ServedModel(**{**fields, **changed}))

    def taken(self, digest: str = CANARY) -> Lease:
        """Submit a job and take it; its worker works with this version."""
        submit(self.redis)
        lease = taken(self.redis)
        leases.at_work(self.redis, lease, self.name, digest)
        return lease

    def counts(self) -> dict[str, int]:
        found = cast("dict[bytes, bytes]", self.redis.hgetall(keys.outcomes(self.name)))
        assert all(field.decode().startswith(f"{self.run_id}:") for field in found)
        return {field.decode().rpartition(":")[2]: int(count) for field, count in found.items()}


@pytest.fixture
def canary(isolated_redis: Redis) -> Canary:
    return Canary(isolated_redis)


def succeed(redis: Redis, lease: Lease) -> None:
    events.append(redis, Succeeded(job_id=lease.job_id, result=RESULT), lease.holder)


def fail(redis: Redis, lease: Lease, error: UpresError) -> None:
    events.append(redis, leases.failure(lease.job_id, error), lease.holder, busy=isinstance(error, TimedOut))


def test_a_job_that_kills_its_workers_counts_against_the_canary(isolated_redis: Redis, canary: Canary) -> None:
    lease = canary.taken()
    for _ in range(keys.ATTEMPTS - 1):
        run_out(isolated_redis, lease.job_id)
        assert [one.outcome for one in leases.recover(isolated_redis)] == ["requeued"]
        lease = taken(isolated_redis)
        leases.at_work(isolated_redis, lease, canary.name, CANARY)
    assert canary.counts() == {}
    run_out(isolated_redis, lease.job_id)
    assert [one.outcome for one in leases.recover(isolated_redis)] == ["failed"]
    assert canary.counts() == {"failed": 1}


def test_a_job_past_its_deadline_counts_only_if_the_canary_was_at_work(isolated_redis: Redis, canary: Canary) -> None:
    lease = canary.taken()
    isolated_redis.zadd(keys.DEADLINES, {lease.job_id: 1})
    leases.recover(isolated_redis)
    assert canary.counts() == {"failed": 1}
    late = canary.taken()
    leases.give_back(isolated_redis, late, "worker_stopping")
    isolated_redis.zadd(keys.DEADLINES, {late.job_id: 1})
    leases.recover(isolated_redis)
    assert canary.counts() == {"failed": 1}


@pytest.mark.parametrize(
    ("error", "counts"),
    [
        (TimedOut("It took too long."), True),
        (OutputNotFinite("NaN"), True),
        (DeviceLost("It fell off the bus."), True),
        (UpresError("unforeseen"), True),
        (TruncatedImage("cut off"), False),
        (UndecodableImage("no image"), False),
        (UrlUnreachable("no answer"), False),
        (StoreUnavailable("no answer"), False),
        (ModelUnavailable("no disk"), False),
        (WorkerUnavailable("no threads"), False),
    ],
    ids=lambda value: getattr(value, "code", None),
)
def test_failures_count_that_the_version_may_have_caused(
    isolated_redis: Redis, canary: Canary, error: UpresError, counts: bool
) -> None:
    fail(isolated_redis, canary.taken(), error)
    assert canary.counts() == ({"failed": 1} if counts else {})


def test_each_end_counts_once_and_a_cancelled_job_not_at_all(isolated_redis: Redis, canary: Canary) -> None:
    lease = canary.taken()
    for _ in range(2):
        succeed(isolated_redis, lease)
    fail(isolated_redis, lease, TimedOut("late"))
    assert canary.counts() == {"well": 1}
    assert 0 < isolated_redis.ttl(keys.outcomes(canary.name)) <= keys.OUTCOMES_SECONDS
    events.append(isolated_redis, Cancelled(job_id=canary.taken().job_id))
    assert canary.counts() == {"well": 1}


def test_jobs_of_the_stable_version_and_of_canaries_without_a_rule_are_not_counted(isolated_redis: Redis) -> None:
    for canary, digest in (
        (Canary(isolated_redis), STABLE),
        (Canary(isolated_redis, rule=None), CANARY),
        (Canary(isolated_redis, labels={}), CANARY),
    ):
        succeed(isolated_redis, canary.taken(digest))
        assert canary.counts() == {}


@pytest.mark.parametrize("record", [b"", b"no json", b"null", b"[1]", b'{"rule": 1, "labels": 2}', None])
def test_an_unreadable_record_of_a_model_fails_no_job(isolated_redis: Redis, canary: Canary, record: Any) -> None:
    key = keys.served_model(canary.name)
    isolated_redis.delete(key)
    if record is None:
        isolated_redis.hset(key, "another", "type")
    else:
        isolated_redis.set(key, record)
    succeed(isolated_redis, canary.taken())
    assert canary.counts() == {}


def test_of_two_canaries_of_a_job_the_one_at_work_gets_the_failure(isolated_redis: Redis) -> None:
    first, main = Canary(isolated_redis), Canary(isolated_redis)
    for end, expected in ((succeed, [{"well": 1}, {"well": 1}]), (fail, [{"well": 1, "failed": 1}, {"well": 1}])):
        lease = first.taken()
        leases.at_work(isolated_redis, lease, main.name, CANARY)
        leases.at_work(isolated_redis, lease, first.name, CANARY)
        end(isolated_redis, lease, *([TimedOut("late")] if end is fail else []))
        assert [first.counts(), main.counts()] == expected


def test_a_job_that_waits_for_an_identical_one_is_no_sample_when_that_dies(
    isolated_redis: Redis, canary: Canary
) -> None:
    leader, parked = canary.taken(), canary.taken()
    assert coalescing.claim(isolated_redis, WORK, leader) == "run"
    assert coalescing.claim(isolated_redis, WORK, parked) == "parked"
    events.append(isolated_redis, leases.failure(leader.job_id, TimedOut("late")), leader.holder, dead=True)
    assert events.read(isolated_redis, parked.job_id)[-1][1].type == "failed"
    assert canary.counts() == {"failed": 1}


def test_a_worker_that_lost_the_job_notes_nothing(isolated_redis: Redis, canary: Canary) -> None:
    submit(isolated_redis)
    lease = taken(isolated_redis)
    run_out(isolated_redis, lease.job_id)
    leases.recover(isolated_redis)
    leases.at_work(isolated_redis, lease, canary.name, CANARY)
    succeed(isolated_redis, taken(isolated_redis))
    assert canary.counts() == {}
