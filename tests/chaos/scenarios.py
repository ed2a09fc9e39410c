"""The chaos scenarios: each injects faults into a running upres and reports measurements and broken invariants."""

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from redis import Redis

from tests.chaos import images
from tests.chaos.fleet import Fleet
from tests.chaos.invariants import (
    EventsByJob,
    Kill,
    broken_invariants,
    jobs_with_falling_percent,
    recoveries,
    run_twice,
)
from tests.chaos.proxy import FaultProxy
from tests.support.waiting import wait_until
from upres.client import Client
from upres.core import events, keys
from upres.core.schema import Event, Succeeded
from upres.embedded.stack import Local

SETTLE_SECONDS = 120
"""After the last fault a job must end at least this often, until all have."""
RECOVERY_SECONDS = 20
COPIES = 4
"""Each image is submitted this many times at once: one job is computed, the others wait and share its result."""


@dataclass
class Outcome:
    """The injected faults and the measurements of one scenario; `faults` is empty if every invariant held."""

    name: str
    injected: dict[str, int] = field(default_factory=dict)
    seen: dict[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


def submit_all(url: str, jobs: int, seed: int, seconds: float, ids: list[str], over: threading.Event) -> None:
    """Submit `jobs` jobs evenly over `seconds`, then serve their images until `over` is set."""
    rng = random.Random(seed)
    begin = time.monotonic()
    image: bytes | str = b""
    with Client(url) as client, images.serving() as source:
        for number in range(jobs):
            time.sleep(max(0, begin + seconds * (number - number % COPIES) / jobs - time.monotonic()))
            if number % COPIES == 0:
                image = images.one(rng, source)
            ids.append(client.submit(image, 4).job_id)
        over.wait()


@contextmanager
def submitting(url: str, jobs: int, seed: int, seconds: float) -> Iterator[list[str]]:
    """Submit jobs in a thread while the block runs; the yielded list grows until it has all job ids."""
    ids: list[str] = []
    over = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(submit_all, url, jobs, seed, seconds, ids, over)
        try:
            yield ids
        finally:
            over.set()
        future.result()


def events_after_the_end(redis: Redis, ids: list[str], seconds: float) -> dict[str, list[Event]]:
    """Wait until all jobs have ended, or none has ended for so many seconds; then return the events of every job."""
    most, deadline = -1, 0.0
    while True:
        received = {job_id: [cast(Event, event) for _, event in events.read(redis, job_id)] for job_id in ids}
        ended = sum(1 for one in received.values() if one and events.is_terminal(one[-1]))
        if ended > most:
            most, deadline = ended, time.monotonic() + seconds
        if ended == len(received) or time.monotonic() > deadline:
            return received
        time.sleep(0.2)


def check(outcome: Outcome, received: dict[str, list[Event]], redis: Redis, kills: Sequence[Kill] = ()) -> None:
    """Check the invariants of every scenario and add what is broken to `outcome.faults`."""
    outcome.faults += broken_invariants(received)
    if late := jobs_with_falling_percent(received):
        outcome.faults.append(f"{late} jobs have events of an attempt after the next one began")
    places = {name: redis.zcard(name) for name in (keys.LEASES, keys.DEADLINES)}
    places |= {name: redis.llen(name) for name in (keys.WAITING, keys.POPPED)}
    if any(places.values()):
        outcome.faults.append(f"something is left: {places}")
    kinds: dict[str, int] = {}
    for one in received.values():
        kinds[one[-1].type] = kinds.get(one[-1].type, 0) + 1
    outcome.seen["jobs"] = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    twice = run_twice(received, kills)
    outcome.seen["run twice"] = str(len(twice))
    outcome.faults += [f"{job_id} was run again although its worker lived" for job_id in twice]
    left = [key for name in ("upres:job:*:run", "upres:work:*:parked") for key in redis.scan_iter(name)]
    if left:
        outcome.faults.append(f"{len(left)} keys of running or waiting jobs are left: {left[:3]}")


def killed_workers(local: Local, log: Any, seed: int, jobs: int, kills: int, seconds: float) -> Outcome:
    """Send SIGKILL or SIGTERM to random workers at random times; each of the three workers is replaced when it ends."""
    outcome = Outcome("workers killed")
    rng = random.Random(seed)
    terms = max(1, kills // 5)
    plan = rng.sample([Fleet.kill] * kills + [Fleet.terminate] * terms, kills + terms)
    redis = Redis.from_url(local.settings.redis_url)
    with Fleet(local, 3, log, UPRES_SLOTS="3", UPRES_STOP_SECONDS="2") as fleet:
        fleet.wait_ready(redis)
        with submitting(local.url, jobs, seed, seconds) as ids:
            for fault in plan:
                time.sleep(rng.uniform(0.5, 1.5) * seconds / len(plan))
                fault(fleet, rng)
            wait_until(lambda: len(ids) == jobs, SETTLE_SECONDS)
            received = events_after_the_end(redis, ids, SETTLE_SECONDS)
        fleet.drain(10)
        outcome.faults += [f"a worker ended with {code}" for code in fleet.unexpected()]
    check(outcome, received, redis, fleet.kills)
    times, starts = recoveries(received, fleet.kills)
    outcome.injected = {"SIGKILL": len(fleet.kills), "SIGTERM": fleet.terms}
    if not times:
        outcome.faults.append("no worker was killed that had a job in hand: nothing was measured")
        return outcome
    p99 = times[min(len(times) - 1, int(0.99 * len(times)))]
    outcome.seen["recovered"] = f"{len(times)}, p50 {times[len(times) // 2]:.1f} s, p99 {p99:.1f} s"
    outcome.seen["began again"] = f"p50 {starts[len(starts) // 2]:.1f} s, last {starts[-1]:.1f} s after the kill"
    outcome.seen["shared a result"] = str(sum(map(shared, received.values())))
    outcome.faults += [f"{job_id} failed, although it kills no worker" for job_id in failed(received)]
    if p99 > RECOVERY_SECONDS:
        outcome.faults.append(f"recovery p99 is {p99:.1f} s")
    return outcome


def failed(received: EventsByJob) -> list[str]:
    """The ids of jobs that failed."""
    return [job_id for job_id, events in received.items() if events[-1:] and events[-1].type == "failed"]


def shared(events: list[Event]) -> bool:
    """Whether the result of this job was computed by another, identical job."""
    last = events[-1]
    return isinstance(last, Succeeded) and last.job_id not in last.result.sr_image_uri


def broken_redis(local: Local, proxy: FaultProxy, log: Any, seed: int, jobs: int, rounds: int) -> Outcome:
    """Kill and restart Redis, and inject partitions, latency and resets into the connections to it."""
    outcome = Outcome("Redis killed, cut off, slow")
    rng = random.Random(seed)
    direct = Redis.from_url(f"redis://127.0.0.1:{local.redis_port}/0")
    faults: dict[str, Callable[[], None]] = {
        "SIGKILL of Redis": lambda: restart(local),
        "partition of 5 s": lambda: hold(proxy.partition(), 5),
        "partition longer than a lease": lambda: hold(proxy.partition(), keys.LEASE_SECONDS + 4),
        "latency of 500 ms": lambda: hold(proxy.latency(0.5), 5),
        "connection resets": lambda: (proxy.reset(), None)[1],
    }
    plan = rng.sample([*faults] * rounds, len(faults) * rounds)
    with Fleet(local, 2, log, UPRES_SLOTS="3") as fleet:
        fleet.wait_ready(direct)  # a worker that cannot reach Redis does not start
        with submitting_through(local.url, jobs, seed) as accepted:
            for name in plan:
                time.sleep(rng.uniform(0.5, 1.5))
                faults[name]()
        received = events_after_the_end(direct, accepted, 60)
        outcome.faults += [f"a worker ended with {code}" for code in fleet.unexpected()]
    check(outcome, received, direct)
    outcome.injected = {name: plan.count(name) for name in faults}
    return outcome


def hold(fault: Any, seconds: float) -> None:
    """Keep a fault active for `seconds`."""
    with fault:
        time.sleep(seconds)


def restart(local: Local) -> None:
    """Kill Redis with SIGKILL and start it again with the same files."""
    local.kill("redis")
    local.start("redis")


@contextmanager
def submitting_through(url: str, jobs: int, seed: int) -> Iterator[list[str]]:
    """Submit up to `jobs` jobs while the block runs; yields a list of the ids of the accepted jobs."""
    accepted: list[str] = []
    over = threading.Event()
    rng = random.Random(seed)

    def work() -> None:
        with Client(url) as client:
            for _ in range(jobs):
                try:
                    accepted.append(client.submit(images.image(rng, 0.1), 4).job_id)
                except Exception:  # refused or unreachable: the job counts as not accepted
                    time.sleep(0.2)
                over.wait(0.05)

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(work)
        yield accepted
        over.set()
        future.result()


def subscribers(local: Local, log: Any, seed: int) -> Outcome:
    """A client that reconnects after each event receives every event exactly once, during the job and after its end."""
    outcome = Outcome("subscribers")
    rng = random.Random(seed)
    followed = 0
    with Fleet(local, 1, log), Client(local.url) as client:
        ids = [client.submit(images.image(rng, 0.5), 8).job_id for _ in range(5)]
        for job_id in ids:
            hopping = list(hop(client, job_id))
            whole = list(client.follow(job_id))
            followed += len(whole) + 1
            if hopping != whole:
                outcome.faults.append(f"{job_id}: reconnecting after each event saw something else")
            for index, (event_id, _) in enumerate(whole):
                if list(client.follow(job_id, event_id)) != whole[index + 1 :]:
                    outcome.faults.append(f"{job_id}: gap or double after event {index}")
            if [event_id for event_id, _ in whole] != sorted(
                (event_id for event_id, _ in whole), key=lambda text: [*map(int, text.split("-"))]
            ):
                outcome.faults.append(f"{job_id}: events out of order")
    outcome.injected = {"reconnections": followed}
    return outcome


def hop(client: Client, job_id: str) -> Iterator[tuple[str, Event]]:
    """Follow a job; open a new connection for each event."""
    after = None
    while entry := next(iter(client.follow(job_id, after)), None):
        yield entry
        after = entry[0]
        if events.is_terminal(entry[1]):
            return


def same_key(local: Local, log: Any, seed: int) -> Outcome:
    """Submit 100 concurrent requests with the same Idempotency-Key: they create one job, which runs once."""
    outcome = Outcome("one key a hundred times", {"requests": 100})
    data = images.image(random.Random(seed))
    with Fleet(local, 1, log), ThreadPoolExecutor(25) as pool, Client(local.url) as client:
        ids = set(pool.map(lambda _: client.submit(data, 2, idempotency_key=f"chaos-{seed}").job_id, range(100)))
        received = {job_id: list(client.events(job_id)) for job_id in ids}
    outcome.faults += broken_invariants(received)
    starts = sum(event.type == "started" for one in received.values() for event in one)
    outcome.seen = {"jobs": str(len(ids)), "runs": str(starts)}
    if (len(ids), starts) != (1, 1):
        outcome.faults.append(f"{len(ids)} jobs, {starts} runs")
    return outcome
