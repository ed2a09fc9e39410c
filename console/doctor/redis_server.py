"""Redis, as the queue needs it: it keeps what it was given, forgets nothing, and lets upres do what it does."""

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

from redis import Redis
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

from upres.console.doctor.finding import Finding, fault, ok, warning
from upres.core import backlog, keys, leases
from upres.core.script import call

OLDEST = (6, 2)
"""BLMOVE, by which no job is lost between the queue and a worker."""
PINGS = 5
SLOW_MILLISECONDS = 20
"""A job takes a dozen round trips."""
NOBODYS_JOB = "0" * 32
CLOCK_SECONDS = 1.0
FULL = 0.8
WAITING_SECONDS = 600


def check(redis: Redis, url: str) -> Iterator[Finding]:
    """Everything about it, as far as one gets; with one that does not answer that is not far."""
    try:
        redis.ping()
    except AuthenticationError as error:
        yield fault("Redis", f"refuses the password ({error})", "Put user and password into UPRES_REDIS_URL.")
        return
    except RedisError as error:
        yield fault(
            "Redis",
            f"does not answer at {_shown(url)} ({error})",
            "Start it, or say in UPRES_REDIS_URL where it is, and let this machine through to it.",
        )
        return
    yield from _server(redis, url)
    for check in (_rights, _speed, _clock, _dead, _waiting):
        try:
            yield check(redis)
        except RedisError as error:
            yield fault("Redis", f"did not do what it was asked ({error})", "See its log.")


def _server(redis: Redis, url: str) -> Iterator[Finding]:
    """What it says of itself."""
    try:
        info: Any = redis.info()
    except NoPermissionError:
        fix = "Look with a user that may ask INFO, like `operator` in infra/redis/users.acl."
        yield warning("Redis", "does not let this user ask how it is set up", fix)
        return
    yield _version(info, url)
    if info.get("role") != "master":
        fix = "Give UPRES_REDIS_URL the address of the primary: a replica takes no jobs."
        yield fault("Redis role", "a replica, which can only be read", fix)
    yield _keeps(info)
    yield _evicts(info)
    yield from _memory(info)
    if info.get("cluster_enabled"):
        yield fault("Redis mode", "cluster", "Use one primary, with replicas if you like: RQ cannot use a cluster.")


def _version(info: Any, url: str) -> Finding:
    version = str(info.get("valkey_version") or info["redis_version"])
    name = "Valkey" if "valkey_version" in info else "Redis"
    at = f"{name} {version} at {_shown(url)}"
    if tuple(map(int, version.split(".")[:2])) < OLDEST:
        return fault("Redis", at, "Use Redis 6.2 or newer, or Valkey.")
    return ok("Redis", at)


def _keeps(info: Any) -> Finding:
    """Whether accepted jobs survive its restart."""
    what = "Redis persistence"
    if info.get("aof_enabled"):
        if info.get("aof_last_write_status") != "ok":
            return fault(what, "the append-only file cannot be written", "See Redis's log; its disk may be full.")
        return ok(what, "append-only file")
    if info.get("connected_slaves"):
        fix = "With appendonly yes accepted jobs also survive the loss of all of them."
        return warning(what, "replicas only, no append-only file", fix)
    fix = "Accepted jobs are lost when it restarts: set appendonly yes (CONFIG SET appendonly yes, CONFIG REWRITE)."
    return fault(what, "no append-only file", fix)


def _evicts(info: Any) -> Finding:
    policy = info.get("maxmemory_policy", "unknown")
    if policy == "noeviction":
        return ok("Redis eviction", "noeviction")
    fix = "When memory gets short, jobs would vanish: set maxmemory-policy noeviction."
    return fault("Redis eviction", policy, fix)


def _memory(info: Any) -> Iterator[Finding]:
    used, most = info["used_memory"], info.get("maxmemory") or 0
    if not most:
        yield ok("Redis memory", f"{used / 1e6:.0f} MB, no limit of its own")
    elif used >= most:
        yield fault("Redis memory", f"full: {used / 1e6:.0f} of {most / 1e6:.0f} MB", "Give it more: it takes no jobs.")
    elif used > FULL * most:
        fix = "Give it more memory; when it is full, nothing is accepted any more."
        yield warning("Redis memory", f"{used / 1e6:.0f} of {most / 1e6:.0f} MB", fix)
    else:
        yield ok("Redis memory", f"{used / 1e6:.0f} of {most / 1e6:.0f} MB")


def _rights(redis: Redis) -> Finding:
    """Whether this user may do what upres does; with a job that nobody has, so that nothing happens."""
    tries: dict[str, Callable[[], object]] = {
        "look into the queue": lambda: redis.llen(keys.WAITING),
        "read events": lambda: redis.xrange(keys.events(NOBODYS_JOB), count=1),
        "run the script": lambda: call(redis, "expire", NOBODYS_JOB, "", ""),
        "renew leases": lambda: leases.renew(redis, [leases.Lease(NOBODYS_JOB, "nobody", 1, 0, {})]),
        "write": lambda: (redis.hset(keys.run(NOBODYS_JOB), "doctor", "1"), redis.delete(keys.run(NOBODYS_JOB))),
        "publish": lambda: redis.publish(keys.channel(NOBODYS_JOB), ""),
    }
    for what, attempt in tries.items():
        try:
            attempt()
        except NoPermissionError as error:
            fix = "Give the user what infra/redis/users.acl gives to its part."
            return fault("Redis rights", f"may not {what} ({error})", fix)
    return ok("Redis rights", "all that upres does")


def _speed(redis: Redis) -> Finding:
    times = []
    for _ in range(PINGS):
        begin = time.perf_counter()
        redis.ping()
        times.append((time.perf_counter() - begin) * 1000)
    found = f"{statistics.median(times):.2f} ms for a round trip"
    if statistics.median(times) > SLOW_MILLISECONDS:
        return warning("Redis speed", found, "Run function and workers nearer to it: a job takes a dozen of them.")
    return ok("Redis speed", found)


def _clock(redis: Redis) -> Finding:
    seconds, microseconds = redis.time()
    return clock_offset("clock of Redis", seconds + microseconds / 1e6 - time.time())


def clock_offset(what: str, seconds: float) -> Finding:
    """How far a clock is ahead of this machine's."""
    found = f"{abs(seconds):.1f} s {'ahead of' if seconds > 0 else 'behind'} this machine's"
    if abs(seconds) > 60:
        fix = "Set both by NTP: links would be refused, and deadlines missed."
        return fault(what, found, fix)
    if abs(seconds) > CLOCK_SECONDS * 2:
        return warning(what, found, "Set both by NTP.")
    return ok(what, "as this machine's")


def _dead(redis: Redis) -> Finding:
    count = backlog.read(redis).dead
    if count:
        fix = "`upres jobs dead` says what died, and `upres jobs replay` tries it again."
        return warning("dead letters", str(count), fix)
    return ok("dead letters", "none")


def _waiting(redis: Redis) -> Finding:
    now = backlog.read(redis)
    found = f"{now.waiting} waiting, {now.running} running"
    if now.oldest_seconds > WAITING_SECONDS:
        found += f"; the oldest has waited for {now.oldest_seconds / 60:.0f} minutes"
        if not now.workers:
            return fault("jobs", f"{found}, and no worker is there", "Start one: python -m upres.worker")
        return warning("jobs", found, "Add workers, or see in their logs why they take none.")
    return ok("jobs", found)


def _shown(url: str) -> str:
    """An address without its password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
