"""What is done to a running upres, each with the figures and faults it found."""

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from redis import Redis

from tests.chaos import images
from tests.chaos.fleet import Fleet
from tests.chaos.invariants import Kill, broken, overtaken, recoveries, run_twice
from tests.chaos.proxy import FaultProxy
from tests.support.waiting import wait_until
from upres.client import Client
from upres.core import events, keys, workers
from upres.core.schema import Event, Succeeded
from upres.embedded.stack import Local

SETTLE_SECONDS = 120
"""When the last fault is over, everything has to end within this time."""
RECOVERY_SECONDS = 20
COPIES = 4
"""Each image comes so many times at once: one job does the work, the others wait for it and share it."""


@dataclass
class Outcome:
    """What one scenario did and saw; `faults` is empty when everything held."""

    name: str
    injected: dict[str, int] = field(default_factory=dict)
    seen: dict[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


def submit_all(url: str, jobs: int, seed: int, seconds: float, ids: list[str], over: threading.Event) -> None:
    """Submit so many jobs, evenly over the time, then serve their images until it is over."""
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
    """Submits besides what the block does; in it the list grows until it has all."""
    ids: list[str] = []
    over = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(submit_all, url, jobs, seed, seconds, ids, over)
        try:
            yield ids
        finally:
            over.set()
        future.result()


def all_told(redis: Redis, ids: list[str], seconds: float) -> dict[str, list[Event]]:
    """Every job's events, as soon as all have ended, or when the time is up."""
    deadline = time.monotonic() + seconds
    while True:
        received = {job_id: [event for _, event in events.read(redis, job_id)] for job_id in ids}
        if all(one and events.is_terminal(one[-1]) for one in received.values()) or time.monotonic() > deadline:
            return received
        time.sleep(0.2)


def check(outcome: Outcome, received: dict[str, list[Event]], redis: Redis, kills: Sequence[Kill] = ()) -> None:
    """The invariants that hold for every scenario."""
    outcome.faults += broken(received)
    if late := overtaken(received):
        outcome.faults.append(f"{late} jobs were told of by an attempt that was overtaken")
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
    """SIGKILL and SIGTERM at random moments, of three workers that are replaced each time."""
    outcome = Outcome("workers killed")
    rng = random.Random(seed)
    terms = max(1, kills // 5)
    plan = rng.sample([Fleet.kill] * kills + [Fleet.terminate] * terms, kills + terms)
    redis = Redis.from_url(local.settings.redis_url)
    with Fleet(local, 3, log, UPRES_SLOTS="3", UPRES_STOP_SECONDS="2") as fleet:
        with submitting(local.url, jobs, seed, seconds) as ids:
            for fault in plan:
                time.sleep(rng.uniform(0.5, 1.5) * seconds / len(plan))
                fault(fleet, rng)
            wait_until(lambda: len(ids) == jobs, SETTLE_SECONDS)
            received = all_told(redis, ids, SETTLE_SECONDS)
        fleet.drain(10)
        outcome.faults += [f"a worker ended with {code}" for code in fleet.unexpected()]
    check(outcome, received, redis, fleet.kills)
    times = recoveries(received, fleet.kills)
    outcome.injected = {"SIGKILL": len(fleet.kills), "SIGTERM": fleet.terms}
    if not times:
        outcome.faults.append("no worker was killed that had a job in hand: nothing was measured")
        return outcome
    p99 = times[min(len(times) - 1, int(0.99 * len(times)))]
    outcome.seen["recovered"] = f"{len(times)}, p50 {times[len(times) // 2]:.1f} s, p99 {p99:.1f} s"
    outcome.seen["shared a result"] = str(sum(map(shared, received.values())))
    if p99 > RECOVERY_SECONDS:
        outcome.faults.append(f"recovery p99 is {p99:.1f} s")
    return outcome


def shared(events: list[Event]) -> bool:
    """Whether another job made this one's result."""
    last = events[-1]
    return isinstance(last, Succeeded) and last.job_id not in last.result.sr_image_uri


def broken_redis(local: Local, proxy: FaultProxy, log: Any, seed: int, jobs: int, rounds: int) -> Outcome:
    """Redis killed and started again, partitions, latency and resets between it and everybody else."""
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
        wait_until(lambda: len(workers.listing(direct)) == 2)  # one that finds no Redis does not start
        with submitting_through(local.url, jobs, seed) as accepted:
            for name in plan:
                time.sleep(rng.uniform(0.5, 1.5))
                faults[name]()
        received = all_told(direct, accepted, 60)
        outcome.faults += [f"a worker ended with {code}" for code in fleet.unexpected()]
    check(outcome, received, direct)
    outcome.injected = {name: plan.count(name) for name in faults}
    return outcome


def hold(fault: Any, seconds: float) -> None:
    """Keep a fault up for so long."""
    with fault:
        time.sleep(seconds)


def restart(local: Local) -> None:
    """SIGKILL Redis, and start it on the same files."""
    local.kill("redis")
    local.start("redis")


@contextmanager
def submitting_through(url: str, jobs: int, seed: int) -> Iterator[list[str]]:
    """Submits as long as the block goes on and the jobs last; holds the ids that were acknowledged."""
    accepted: list[str] = []
    over = threading.Event()
    rng = random.Random(seed)

    def work() -> None:
        with Client(url) as client:
            for _ in range(jobs):
                try:
                    accepted.append(client.submit(images.image(rng, 0.1), 4).job_id)
                except Exception:  # refused or unreachable: not accepted, which is an answer
                    time.sleep(0.2)
                over.wait(0.05)

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(work)
        yield accepted
        over.set()
        future.result()


def subscribers(local: Local, log: Any, seed: int) -> Outcome:
    """Someone who reconnects after every event, live, late, and after the end, misses and doubles nothing."""
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
    """Follow a job over a new connection for each event."""
    after = None
    while entry := next(iter(client.follow(job_id, after)), None):
        yield entry
        after = entry[0]
        if events.is_terminal(entry[1]):
            return


def same_key(local: Local, log: Any, seed: int) -> Outcome:
    """The same Idempotency-Key, a hundred times at once."""
    outcome = Outcome("one key a hundred times", {"requests": 100})
    data = images.image(random.Random(seed))
    with Fleet(local, 1, log), ThreadPoolExecutor(25) as pool, Client(local.url) as client:
        ids = set(pool.map(lambda _: client.submit(data, 2, idempotency_key=f"chaos-{seed}").job_id, range(100)))
        received = {job_id: list(client.events(job_id)) for job_id in ids}
    outcome.faults += broken(received)
    starts = sum(event.type == "started" for one in received.values() for event in one)
    outcome.seen = {"jobs": str(len(ids)), "runs": str(starts)}
    if (len(ids), starts) != (1, 1):
        outcome.faults.append(f"{len(ids)} jobs, {starts} runs")
    return outcome
