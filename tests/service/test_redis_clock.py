"""The clock of Redis goes back by two days: it is set, or a replica with another clock is promoted."""

from typing import Any, cast

from redis import Redis

from tests.support.leasing import everything, submit, taken, waiting
from upres.core import api_keys, keys, leases

TWO_DAYS = 2 * keys.DAY * 1000


def milliseconds(redis: Redis) -> int:
    seconds, microseconds = redis.time()
    return seconds * 1000 + microseconds // 1000


def ahead(redis: Redis) -> int:
    """What a clock that is two days ahead shows."""
    return milliseconds(redis) + TWO_DAYS


def test_the_job_of_a_dead_worker_is_recovered_after_a_lease_and_not_after_two_days(isolated_redis: Redis) -> None:
    job_id = submit(isolated_redis)
    taken(isolated_redis)
    isolated_redis.zadd(keys.LEASES, {job_id: ahead(isolated_redis)})
    assert leases.recover(isolated_redis) == []
    left = float(cast(Any, isolated_redis.zscore(keys.LEASES, job_id))) - milliseconds(isolated_redis)
    assert 0 < left <= keys.LEASE_SECONDS * 1000


def test_a_lease_that_is_renewed_meanwhile_stays(isolated_redis: Redis) -> None:
    submit(isolated_redis)
    lease = taken(isolated_redis)
    isolated_redis.zadd(keys.LEASES, {lease.job_id: ahead(isolated_redis)})
    leases.recover(isolated_redis)
    assert leases.renew(isolated_redis, [lease]) == set()


def test_living_workers_get_time_when_the_last_recovery_was_in_the_future(isolated_redis: Redis) -> None:
    job_id = submit(isolated_redis)
    lease = taken(isolated_redis)
    isolated_redis.set(keys.LAST_RECOVERY, ahead(isolated_redis))
    isolated_redis.zadd(keys.LEASES, {job_id: 1})
    assert leases.recover(isolated_redis) == []
    assert leases.renew(isolated_redis, [lease]) == set()


def test_jobs_that_are_nowhere_are_found_when_the_last_look_was_in_the_future(isolated_redis: Redis) -> None:
    job_id = submit(isolated_redis)
    isolated_redis.set(keys.AUDITED, ahead(isolated_redis), ex=2 * keys.DAY)
    isolated_redis.delete(keys.WAITING)
    leases.recover(isolated_redis)
    assert waiting(isolated_redis) == [job_id]


def test_an_api_key_does_not_wait_for_two_days(isolated_redis: Redis) -> None:
    key, _ = api_keys.create(isolated_redis, "one")
    api_keys.count_request(isolated_redis, key)
    [rate] = [name for name in everything(isolated_redis) if name.endswith(":rate")]
    isolated_redis.set(rate, ahead(isolated_redis))
    api_keys.count_request(isolated_redis, key)
