"""Property test of the life of a job: after any actions of workers, late or repeated, it ends exactly once."""

from collections import Counter
from typing import TypeVar, cast

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from tests.support.events import RESULT
from tests.support.leasing import OTHER, WORK, empty, everything, run_out, submit, types
from upres.core import coalescing, events, keys, leases
from upres.core.errors import StoreUnavailable
from upres.core.leases import Lease
from upres.core.schema import TERMINAL, Cancelled, Failed, Progress, Reason, Result, Succeeded
from upres.core.script import call


class World:
    """Workers that act in any order, late or repeatedly; each method is one action."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.ids: list[str] = []
        self.popped: list[str] = []
        self.held: list[Lease] = []
        self.robbed: set[str] = set()
        for _ in range(4):
            self.submit(0)
            self.pop(0)
            self.held.append(cast(Lease, leases.take(redis, self.popped[-1])))

    def submit(self, pick: int) -> None:
        self.ids.append(submit(self.redis))

    def pop(self, pick: int) -> None:
        if job_id := leases.pop(self.redis, 0.01):
            self.popped.append(job_id)

    def take(self, pick: int) -> None:
        if self.popped and (lease := leases.take(self.redis, one(self.popped, pick))):
            self.held.append(lease)

    def put_back(self, pick: int) -> None:
        if self.popped:
            leases.put_back(self.redis, one(self.popped, pick))

    def recover(self, pick: int) -> None:
        leases.recover(self.redis)

    def die(self, pick: int) -> None:
        for job_id in (*self.popped, *(lease.job_id for lease in self.held)):
            if self.redis.zscore(keys.LEASES, job_id):
                run_out(self.redis, job_id)

    def quiet(self, pick: int) -> None:
        self.redis.set(keys.LAST_RECOVERY, 1)

    def be_late(self, pick: int) -> None:
        if self.ids and self.redis.zscore(keys.DEADLINES, one(self.ids, pick)):
            self.redis.zadd(keys.DEADLINES, {one(self.ids, pick): 1})

    def renew(self, pick: int) -> None:
        leases.renew(self.redis, self.held)

    def claim(self, pick: int) -> None:
        if self.held:
            coalescing.claim(self.redis, (WORK, OTHER)[pick % 2], one(self.held, pick // 2), gone=pick == 0)

    def tell(self, pick: int) -> None:
        if self.held:
            lease = one(self.held, pick)
            told = [Progress(job_id=lease.job_id, stage="fetch", percent=percent) for percent in (0, 1)]
            events.append_all(self.redis, told, lease.holder)

    def checkpoint(self, pick: int) -> None:
        if self.held:
            lease = one(self.held, pick)
            call(self.redis, "checkpoint", lease.job_id, lease.holder, WORK, "0-8")

    def finish(self, pick: int) -> None:
        if self.held:
            lease = one(self.held, pick)
            told = Progress(job_id=lease.job_id, stage="store", percent=97)
            events.append_all(self.redis, [told, Succeeded(job_id=lease.job_id, result=RESULT)], lease.holder)

    def fail_badly(self, pick: int) -> None:
        if self.held:
            lease = one(self.held, pick)
            failed = Failed(job_id=lease.job_id, code="c", message="m", retryable=False)
            events.append(self.redis, failed, lease.holder, dead=True)

    def cancel(self, pick: int) -> None:
        if self.ids:
            events.append(self.redis, Cancelled(job_id=one(self.ids, pick)))

    def give_back(self, pick: int) -> None:
        if self.held:
            reason: Reason = "device_lost" if pick % 2 else "worker_stopping"
            leases.give_back(self.redis, one(self.held, pick // 2), reason)

    def hand_back(self, pick: int) -> None:
        if self.held:
            leases.hand_back(self.redis, one(self.held, pick), StoreUnavailable("s"))

    def is_alone(self, pick: int) -> None:
        if self.held:
            leases.is_alone(self.redis, one(self.held, pick))

    def rob(self, pick: int) -> None:
        """Another program takes a job from the queue, as `rq worker` does, or also deletes its record (`rq empty`)."""
        if job_id := cast("bytes | None", self.redis.lpop(keys.WAITING)):
            self.robbed.add(job_id.decode())
            if pick % 2:
                self.redis.delete(keys.record(job_id.decode()))

    def audit(self, pick: int) -> None:
        self.redis.delete(keys.AUDITED)
        leases.recover(self.redis)
        self.robbed.clear()

    def check(self) -> None:
        """Check that each unfinished job is in exactly one place, an ended job has no holder, temporary keys expire.

        A job that was robbed is nowhere until an audit.
        """
        parked = [f"{work}:parked" for work in (WORK, OTHER)]
        for job_id in self.ids:
            listed = [
                name for name in (keys.WAITING, keys.POPPED, *parked) for _ in positions(self.redis, name, job_id)
            ]
            if self.redis.hexists(keys.run(job_id), "holder"):
                listed.append("held")
                assert self.redis.zscore(keys.LEASES, job_id) is not None
            if types(self.redis, job_id)[-1] in TERMINAL:
                assert "held" not in listed
            else:
                assert len(listed) == 1 or (not listed and job_id in self.robbed), listed
        passing = [name for name in everything(self.redis) if name.endswith((":run", ":parked", WORK, OTHER))]
        assert [name for name in passing if self.redis.ttl(name) <= 0] == []

    def finish_all(self) -> None:
        """All workers die; then another worker takes and finishes jobs until no job waits."""
        self.audit(0)
        for _ in range(2):
            leases.recover(self.redis)
            for job_id in cast("list[bytes]", self.redis.zrange(keys.LEASES, 0, -1)):
                run_out(self.redis, job_id.decode())
        leases.recover(self.redis)
        while self.redis.llen(keys.WAITING):
            lease = leases.take(self.redis, leases.pop(self.redis, 0.1) or "")
            if lease and (claim := coalescing.claim(self.redis, WORK, lease)) != "parked":
                assert claim == "run" or isinstance(claim, Result)
                assert events.append(self.redis, Succeeded(job_id=lease.job_id, result=RESULT), lease.holder)


T = TypeVar("T")


def one(things: list[T], pick: int) -> T:
    return things[pick % len(things)]


def positions(redis: Redis, name: str, job_id: str) -> list[int]:
    return cast("list[int]", redis.lpos(name, job_id, count=0) or [])


STEPS = [name for name in vars(World) if name[0] != "_" and name not in ("finish_all", "check")]


@given(steps=st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 9)), max_size=60))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
def test_after_any_actions_every_job_ends_once_and_leaves_no_keys(
    isolated_redis: Redis, steps: list[tuple[str, int]]
) -> None:
    empty(isolated_redis)
    world = World(isolated_redis)
    for name, pick in steps:
        getattr(world, name)(pick)
        world.check()
    world.finish_all()
    letters = {job_id.decode() for job_id in cast("list[bytes]", isolated_redis.zrange(keys.DEAD, 0, -1))}
    for job_id in world.ids:
        received = types(isolated_redis, job_id)
        assert received[0] == "queued"
        assert [type for type in received if type in TERMINAL] == [received[-1]]
        assert isolated_redis.exists(keys.record(job_id)) == (job_id in letters)
    left = everything(isolated_redis) - {name(job_id) for job_id in world.ids for name in (keys.events, keys.record)}
    assert left <= {"rq:queues", WORK, OTHER, keys.DEAD, keys.LAST_RECOVERY, keys.AUDITED, keys.DEATHS, keys.JOB_COUNTS}
    counted = cast("dict[bytes, bytes]", isolated_redis.hgetall(keys.JOB_COUNTS))
    ends = Counter(types(isolated_redis, job_id)[-1] for job_id in world.ids)
    assert ends == sum((Counter({field.decode().split("|")[1]: int(n)}) for field, n in counted.items()), Counter())
    assert all(isolated_redis.ttl(name) > 0 for name in left - {"rq:queues", keys.JOB_COUNTS})
