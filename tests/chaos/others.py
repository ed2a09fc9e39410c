"""Chaos by others: Redis is demoted or refuses writes, the object store refuses a worker or is cut off."""

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from redis import Redis

from tests.chaos.fleet import Fleet
from tests.chaos.proxy import FaultProxy
from tests.chaos.scenarios import Outcome, check, events_after_the_end, submitting_through
from tests.support import gate as gates
from tests.support.waiting import wait_until
from upres.embedded.child import Child, accepts, free_port
from upres.embedded.stack import Local, redis_server

END_SECONDS = 120


def demotions(local: Local, proxy: FaultProxy, log: IO[bytes], seed: int, jobs: int, rounds: int) -> Outcome:
    """Promote a replica behind the address of Redis, and let Redis refuse writes, while jobs run. All must succeed.

    The replica has everything when it is promoted; what a replica does not have yet is lost with any Redis. The
    connections to the former primary stay open, as Redis leaves them.
    """
    outcome = Outcome("Redis demoted, writes refused", {"demotions": rounds, "refused writes of 3 s": rounds})
    rng, nodes = random.Random(seed), [local.redis_port, free_port()]
    with replica(nodes[1], nodes[0], local.folder), Fleet(local, 2, log, UPRES_SLOTS="3") as fleet:
        fleet.wait_ready(Redis(port=nodes[0]))
        with submitting_through(local.url, jobs, seed) as accepted:
            for _ in range(rounds):
                time.sleep(rng.uniform(1, 2))
                primary = Redis(port=nodes[0])
                primary.config_set("min-replicas-to-write", 9)
                time.sleep(3)
                primary.config_set("min-replicas-to-write", 0)
                time.sleep(rng.uniform(1, 2))
                nodes.reverse()
                promote(proxy, *nodes)
        received = events_after_the_end(Redis(port=nodes[0]), accepted, END_SECONDS)
        outcome.faults += [f"a worker ended with {code}" for code in fleet.unexpected()]
        check(outcome, received, Redis(port=nodes[0]))
    return all_succeeded(outcome)


@contextmanager
def replica(port: int, of: int, folder: Path) -> Iterator[None]:
    """Run a replica of a Redis server during the block."""
    command = [
        redis_server(),
        "--port",
        str(port),
        "--dir",
        str(folder),
        "--save",
        "",
        "--replicaof",
        f"127.0.0.1 {of}",
    ]
    with Child("replica", command, {}, folder) as child:
        child.wait_ready(lambda: accepts(port) and is_synchronous(Redis(port=port)))
        yield


def is_synchronous(node: Redis) -> bool:
    """Whether a replica is connected to its primary, and has all its data."""
    return bool(node.info("replication").get("master_link_status") == "up")


def promote(proxy: FaultProxy, new: int, old: int) -> None:
    """Make a replica the primary, and let the address lead to it. Writes wait until it has everything."""
    former, promoted = Redis(port=old), Redis(port=new)
    former.client_pause(2000, all=False)
    wait_until(lambda: offset(former) == offset(promoted), 2)
    promoted.replicaof("NO", "ONE")
    proxy.target = new
    former.replicaof("127.0.0.1", str(new))
    wait_until(lambda: is_synchronous(former))


def offset(node: Redis) -> int:
    """How much of the primary's data a node has."""
    info = node.info("replication")
    return int(info["master_repl_offset"] if info["role"] == "master" else info["slave_repl_offset"])


def sick_store(local: Local, log: IO[bytes], seed: int, jobs: int, seconds: float) -> Outcome:
    """One of two workers is refused by its store now and then, and gets bodies that end early: all jobs succeed."""
    outcome = Outcome("a store that refuses one worker")
    rng, over = random.Random(seed), threading.Event()
    with gates.before(local.settings.s3_endpoint_url) as gate:
        gate.cut_every = 5
        sick = {"UPRES_S3_ENDPOINT_URL": gate.url, "UPRES_SLOTS": "3"}
        with Fleet(local, 1, log, **sick) as one, Fleet(local, 1, log, UPRES_SLOTS="3") as two:
            for fleet in (one, two):
                fleet.wait_ready(Redis.from_url(local.settings.redis_url))
            with submitting_through(local.url, jobs, seed) as accepted:
                deadline = time.monotonic() + seconds
                while time.monotonic() < deadline:
                    gate.refuses = not gate.refuses
                    over.wait(rng.uniform(1, 3))
                gate.refuses = False
            with Redis.from_url(local.settings.redis_url) as redis:
                received = events_after_the_end(redis, accepted, END_SECONDS)
                outcome.faults += [f"a worker ended with {code}" for code in one.unexpected() + two.unexpected()]
                check(outcome, received, redis)
    outcome.injected = {"refused requests": gate.refused, "bodies cut off": gate.cut}
    return all_succeeded(outcome)


def all_succeeded(outcome: Outcome) -> Outcome:
    """Add a fault if a job ended in another way: in these scenarios no job is the cause of anything."""
    if "failed" in outcome.seen["jobs"]:
        outcome.faults.append(f"innocent jobs failed: {outcome.seen['jobs']}")
    return outcome
