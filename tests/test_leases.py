"""Leases, recovery, checkpoints and shared work, as Redis sees them: no worker takes part."""

import secrets
from collections.abc import Iterator
from typing import TypeVar, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from core import coalescing, events, keys, leases
from core.enqueue import enqueue
from core.leases import Lease
from core.queue import open_queue, read_message
from core.schema import TERMINAL, Cancelled, Failed, JobMessage, Progress, Requeued, Result, Succeeded
from core.script import call
from infra.local import Local
from tests.test_events import RESULT
from tests.test_worker import message

WORK = "upres:work:x"


@pytest.fixture
def apart(local: Local) -> Iterator[Redis]:
    """A database that no worker looks at."""
    with Redis.from_url(local.settings.redis_url.removesuffix("/0") + "/1") as connection:
        connection.flushdb()
        yield connection
        connection.flushdb()


def submit(redis: Redis) -> str:
    job_id = secrets.token_hex(16)
    return enqueue(open_queue(redis), JobMessage.model_validate(message(job_id)))


def taken(redis: Redis) -> Lease:
    job_id = leases.pop(redis, 0.1)
    assert job_id
    lease = leases.take(redis, job_id, secrets.token_hex(8))
    assert lease
    return lease


def run_out(redis: Redis, job_id: str) -> None:
    """As if the worker had said nothing for the time of a lease."""
    redis.zadd(keys.LEASES, {job_id: 1})


def waiting(redis: Redis) -> list[str]:
    return [job_id.decode() for job_id in cast("list[bytes]", redis.lrange(keys.WAITING, 0, -1))]


def everything(redis: Redis) -> set[str]:
    return {key.decode() for key in cast("list[bytes]", redis.keys("*"))}


def types(redis: Redis, job_id: str) -> list[str]:
    return [event.type for _, event in events.read(redis, job_id)]


def test_a_popped_job_is_taken_once_with_what_it_needs(apart: Redis) -> None:
    job_id = submit(apart)
    assert leases.pop(apart, 0.1) == job_id
    lease = leases.take(apart, job_id, "me")
    assert lease
    assert (lease.job_id, lease.attempt) == (job_id, 1)
    assert read_message(job_id, lease.record).job_id == job_id
    assert leases.take(apart, job_id, "me") == lease  # its answer was lost, and it is asked again
    assert leases.take(apart, job_id, "somebody else") is None
    assert leases.pop(apart, 0.1) is None


def test_a_job_whose_worker_lives_is_left_alone(apart: Redis) -> None:
    lease = (submit(apart), taken(apart))[1]
    assert leases.renew(apart, [lease]) == set()
    assert leases.recover(apart) == []


def test_a_job_whose_worker_died_goes_on_elsewhere_and_the_dead_one_is_fenced_off(apart: Redis) -> None:
    job_id = submit(apart)
    dead = taken(apart)
    run_out(apart, job_id)
    assert leases.recover(apart) == [(job_id, "requeued")]
    assert leases.recover(apart) == []
    alive = taken(apart)
    assert (dead.attempt, alive.attempt) == (1, 2)
    assert leases.renew(apart, [dead]) == {job_id}
    late = Succeeded(job_id=job_id, result=RESULT)
    assert events.append(apart, late, dead.attempt) is None
    leases.give_back(apart, dead, "worker_stopping")
    assert call(apart, "checkpoint", job_id, dead.attempt, "0-8") is None
    assert coalescing.claim(apart, WORK, dead) is None
    assert leases.renew(apart, [alive]) == set()
    assert events.append(apart, late, alive.attempt)
    assert types(apart, job_id) == ["queued", "requeued", "succeeded"]


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
    assert leases.take(apart, job_id, "late") is None
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
    assert read_message(job_id, apart.hgetall(keys.record(job_id))).job_id == job_id  # type: ignore[arg-type]
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
    assert everything(apart) <= {keys.events(job_id), "rq:queues"}


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


def test_identical_work_is_done_once_and_shared(apart: Redis) -> None:
    ids = [submit(apart) for _ in range(4)]
    first, *others = [taken(apart) for _ in ids]
    assert coalescing.claim(apart, WORK, first) == "do it"
    assert [coalescing.claim(apart, WORK, other) for other in others] == ["wait"] * 3
    assert apart.zcard(keys.LEASES) == 1
    assert events.append(apart, Succeeded(job_id=ids[0], result=RESULT), first.attempt)
    assert waiting(apart) == ids[1:]
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


class World:
    """Workers that do what they please, late and twice."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self.ids: list[str] = []
        self.popped: list[str] = []
        self.held: list[Lease] = []

    def submit(self, pick: int) -> None:
        self.ids.append(submit(self.redis))

    def pop(self, pick: int) -> None:
        if job_id := leases.pop(self.redis, 0.01):
            self.popped.append(job_id)

    def take(self, pick: int) -> None:
        if self.popped and (lease := leases.take(self.redis, one(self.popped, pick), secrets.token_hex(8))):
            self.held.append(lease)

    def recover(self, pick: int) -> None:
        leases.recover(self.redis)

    def die(self, pick: int) -> None:
        for job_id in (*self.popped, *(lease.job_id for lease in self.held)):
            if self.redis.zscore(keys.LEASES, job_id):
                run_out(self.redis, job_id)

    def claim(self, pick: int) -> None:
        if self.held:
            coalescing.claim(self.redis, WORK, one(self.held, pick))

    def tell(self, pick: int) -> None:
        if self.held:
            job_id, attempt, _ = one(self.held, pick)
            events.append(self.redis, Progress(job_id=job_id, stage="fetch", percent=0), attempt)

    def finish(self, pick: int) -> None:
        if self.held:
            job_id, attempt, _ = one(self.held, pick)
            events.append(self.redis, Succeeded(job_id=job_id, result=RESULT), attempt)

    def cancel(self, pick: int) -> None:
        if self.ids:
            events.append(self.redis, Cancelled(job_id=one(self.ids, pick)))

    def give_back(self, pick: int) -> None:
        if self.held:
            leases.give_back(self.redis, one(self.held, pick), "worker_stopping")

    def finish_all(self) -> None:
        """All these workers die; another takes what there is until there is nothing."""
        leases.recover(self.redis)
        for job_id in cast("list[bytes]", self.redis.zrange(keys.LEASES, 0, -1)):
            run_out(self.redis, job_id.decode())
        leases.recover(self.redis)
        while self.redis.llen(keys.WAITING):
            lease = leases.take(self.redis, leases.pop(self.redis, 0.1) or "", secrets.token_hex(8))
            if lease and (claim := coalescing.claim(self.redis, WORK, lease)) != "wait":
                assert claim == "do it" or isinstance(claim, Result)
                assert events.append(self.redis, Succeeded(job_id=lease.job_id, result=RESULT), lease.attempt)


T = TypeVar("T")


def one(things: list[T], pick: int) -> T:
    return things[pick % len(things)]


STEPS = [name for name in vars(World) if not name.startswith("_") and name != "finish_all"]


@given(steps=st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 9)), max_size=50))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
def test_whatever_happens_every_job_ends_once_and_leaves_nothing(apart: Redis, steps: list[tuple[str, int]]) -> None:
    apart.flushdb()
    world = World(apart)
    for name, pick in steps:
        getattr(world, name)(pick)
    world.finish_all()
    for job_id in world.ids:
        told = types(apart, job_id)
        assert told[0] == "queued"
        assert [type for type in told if type in TERMINAL] == [told[-1]]
    left = everything(apart) - {keys.events(job_id) for job_id in world.ids}
    letters = {keys.DEAD, *(keys.record(job_id) for job_id in world.ids)} if apart.zcard(keys.DEAD) else set()
    assert left <= {"rq:queues", WORK, *letters}
