"""Jobs are not blamed for what another job, their worker, or a full Redis did. No worker runs."""

from collections.abc import Callable
from typing import cast

import pytest
from redis import Redis
from redis.exceptions import RedisError

from tests.support.events import RESULT
from tests.support.leasing import ended, everything, run_out, submit, taken, waiting
from upres.core import events, keys, leases
from upres.core.errors import StoreUnavailable
from upres.core.leases import Lease
from upres.core.schema import Cancelled, Succeeded


def test_only_a_job_that_was_alone_in_its_dying_workers_is_convicted(isolated_redis: Redis) -> None:
    """Two jobs are in the hands of the same dying workers; one of them kills them. The other one must not fail."""
    innocent, poison = submit(isolated_redis), submit(isolated_redis)
    for _ in range(keys.MAX_ATTEMPTS + 1):  # they die together, as often as it takes
        leases.recover(isolated_redis)
        for _ in range(2):
            run_out(isolated_redis, taken(isolated_redis, alone=False).job_id)
    leases.recover(isolated_redis)
    held = {lease.job_id: lease for lease in (taken(isolated_redis) for _ in range(2))}
    assert all(lease.deaths >= keys.SUSPECT_DEATHS for lease in held.values())  # so each is done alone
    run_out(isolated_redis, poison)
    leases.recover(isolated_redis)
    assert ended(isolated_redis, poison).code == "worker_lost"
    assert events.append(isolated_redis, Succeeded(job_id=innocent, result=RESULT), held[innocent].holder)


def test_a_job_is_not_convicted_by_the_deaths_of_workers_that_die_anyway(isolated_redis: Redis) -> None:
    """Other workers die while this job is done alone, each with another job. It fails only after keys.MAX_ATTEMPTS."""
    job_id = submit(isolated_redis)
    for attempt in range(1, keys.MAX_ATTEMPTS + 1):
        assert taken(isolated_redis).attempt == attempt
        other = submit(isolated_redis)
        for dying in (taken(isolated_redis).job_id, job_id):
            run_out(isolated_redis, dying)
            leases.recover(isolated_redis)
        events.append(isolated_redis, Cancelled(job_id=other))
    assert ended(isolated_redis, job_id).code == "worker_lost"


def test_a_job_that_two_workers_died_with_while_it_was_alone_is_convicted(isolated_redis: Redis) -> None:
    poison = submit(isolated_redis)
    for lonely in [False, *[True] * (keys.ATTEMPTS - keys.SUSPECT_DEATHS)]:
        assert leases.recover(isolated_redis) == []
        run_out(isolated_redis, taken(isolated_redis, alone=lonely).job_id)
        found = leases.recover(isolated_redis)
    assert found == [(poison, "failed")]


def test_a_job_that_was_handed_back_too_often_fails_with_the_fault(isolated_redis: Redis) -> None:
    job_id = submit(isolated_redis)
    fault = StoreUnavailable("The object store refused a request (ExpiredToken).")
    for _ in range(keys.RETURNS):
        assert leases.hand_back(isolated_redis, taken(isolated_redis), fault) == "requeued"
        assert waiting(isolated_redis) == [job_id]
    lease = taken(isolated_redis)
    assert lease.deaths == 0
    assert leases.hand_back(isolated_redis, lease, fault) == "failed"
    assert leases.hand_back(isolated_redis, lease, fault) is None
    assert ended(isolated_redis, job_id).code == "store_unavailable"


@pytest.mark.parametrize("operation", ["put_back", "take", "give_back", "hand_back", "recover"])
def test_an_operation_that_a_full_memory_refuses_changes_nothing(isolated_redis: Redis, operation: str) -> None:
    job_id = submit(isolated_redis)
    popped = leases.pop(isolated_redis, 0.1)
    assert popped == job_id
    lease = leases.take(isolated_redis, job_id) if operation in ("give_back", "hand_back") else None
    acts: dict[str, Callable[[], object]] = {
        "put_back": lambda: leases.put_back(isolated_redis, job_id),
        "take": lambda: leases.take(isolated_redis, job_id),
        "give_back": lambda: leases.give_back(isolated_redis, cast(Lease, lease), "worker_stopping"),
        "hand_back": lambda: leases.hand_back(isolated_redis, cast(Lease, lease), StoreUnavailable("s")),
        "recover": lambda: leases.recover(isolated_redis),
    }
    before = {name: isolated_redis.dump(name) for name in everything(isolated_redis)}
    isolated_redis.config_set("maxmemory", 1)
    try:
        with pytest.raises(RedisError):
            acts[operation]()
        assert {name: isolated_redis.dump(name) for name in everything(isolated_redis)} == before
    finally:
        isolated_redis.config_set("maxmemory", 0)
    acts[operation]()
    events.append(isolated_redis, Cancelled(job_id=job_id))
