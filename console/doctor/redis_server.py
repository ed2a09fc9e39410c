"""Checks of Redis: reachable, persistent, no eviction, enough memory and rights, fast; and of the queue in it."""

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

from redis import Redis
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

from upres.console.doctor import redis_users
from upres.console.doctor.finding import Finding, fault, ok, warning
from upres.core import backlog, keys, leases
from upres.core.script import call

OLDEST = (6, 2)
"""Oldest Redis version with BLMOVE, which moves a job from the queue to a worker without losing it."""
PINGS = 5
SLOW_MILLISECONDS = 20
"""A round trip that takes longer is reported: a job needs about a dozen round trips."""
NOBODYS_JOB = "0" * 32
"""A job id that no job has, for harmless test commands."""
CLOCK_SECONDS = 1.0
"""A clock offset of more than twice this, in seconds, is reported."""
FULL = 0.8
"""Share of maxmemory in use from which it counts as nearly full."""
WAITING_SECONDS = 600
"""Age in seconds of the oldest waiting job from which the queue is reported."""


def check(redis: Redis, url: str) -> Iterator[Finding]:
    """Run all checks; only the first one when Redis cannot be reached."""
    try:
        redis.ping()
    except AuthenticationError as error:
        yield fault("Redis", f"refuses the password ({error})", "Put user and password into UPRES_REDIS_URL.")
        return
    except RedisError as error:
        yield fault(
            "Redis",
            f"does not answer at {_shown(url)} ({error})",
            "Start it, or set UPRES_REDIS_URL to its address, and allow connections from this machine to it.",
        )
        return
    yield from _server(redis, url)
    for check in (lambda one: redis_users.check(one, url), _rights, _speed, _clock, _dead, _waiting):
        try:
            yield check(redis)
        except RedisError as error:
            yield fault("Redis", f"a command failed ({error})", "See the log of Redis.")


def _server(redis: Redis, url: str) -> Iterator[Finding]:
    """The checks that use the output of INFO. Without the right to run INFO, one warning."""
    try:
        info: Any = redis.info()
    except NoPermissionError:
        fix = "Run doctor as a user that may run INFO, for example `operator` in infra/redis/users.acl."
        yield warning("Redis", "does not allow this user to run INFO", fix)
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
    """Check that accepted jobs survive a restart of Redis."""
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
    """Check that this user has the rights that upres needs. Uses a job id that does not exist, so no job is changed."""
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
            fix = "Give the user the rights that infra/redis/users.acl gives to its part."
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
        return warning("Redis speed", found, "Run function and workers nearer to it: a job takes a dozen round trips.")
    return ok("Redis speed", found)


def _clock(redis: Redis) -> Finding:
    seconds, microseconds = redis.time()
    return clock_offset("clock of Redis", seconds + microseconds / 1e6 - time.time())


def clock_offset(what: str, seconds: float) -> Finding:
    """Compare a clock with that of this machine; `seconds` is how far it is ahead."""
    found = f"{abs(seconds):.1f} s {'ahead of' if seconds > 0 else 'behind'} this machine's"
    if abs(seconds) > 60:
        fix = "Synchronise both by NTP: otherwise presigned URLs are refused, and deadlines missed."
        return fault(what, found, fix)
    if abs(seconds) > CLOCK_SECONDS * 2:
        return warning(what, found, "Synchronise both by NTP.")
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
            return fault("jobs", f"{found}, and no worker is running", "Start one: python -m upres.worker")
        return warning("jobs", found, "Add workers, or see in their logs why they take none.")
    return ok("jobs", found)


def _shown(url: str) -> str:
    """The URL without user and password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
