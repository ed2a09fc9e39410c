"""The lock of the registry of models in Redis, for object stores that honour no conditional writes."""

import logging
import random
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from upres.core import keys
from upres.core.errors import StoreUnavailable
from upres.core.settings import Settings

if TYPE_CHECKING:
    from redis import Redis

log = logging.getLogger("upres.registry")

LOCK_SECONDS = 60
"""The lock of a process that has died ends after this time. It is held while one document is read and written."""
BUSY = "The registry of models is being changed by others; try again in a few seconds."
UNGUARDED = (
    "The object store ignores If-None-Match and If-Match, and there is no lock, because Redis (UPRES_REDIS_URL) cannot "
    "be used: what another process changes in the registry at the same time may get lost. Change it from one place at "
    "a time."
)
_EXTEND = "return redis.call('get', KEYS[1]) == ARGV[1] and redis.call('expire', KEYS[1], ARGV[2]) or 0"
_RELEASE = "return redis.call('get', KEYS[1]) == ARGV[1] and redis.call('del', KEYS[1]) or 0"

_warned: set[str] = set()


@contextmanager
def held(settings: Settings) -> Iterator[Callable[[], None]]:
    """Hold the lock. Yields a function that raises StoreUnavailable when this process holds it no more.

    Where Redis cannot be used, nothing is locked, and a warning says so. Raises StoreUnavailable when others hold the
    lock all the time. redis-py's own lock needs SCRIPT LOAD, which workers may not run (infra/redis/users.acl).
    """
    token = secrets.token_hex(16)
    connection = _acquired(settings, token)
    if connection is None:
        yield lambda: None
        return
    with connection:
        try:
            yield lambda: _check_held(connection, token)
        finally:
            _release(connection, token)


def _acquired(settings: Settings, token: str) -> "Redis | None":
    """Take the lock, and return the connection; None when Redis cannot be used."""
    try:
        from redis.exceptions import RedisError

        from upres.core.queue import connect_with_timeout
    except ModuleNotFoundError as error:
        _warn(settings, error)
        return None
    connection = connect_with_timeout(settings)
    try:
        until = time.monotonic() + LOCK_SECONDS + 10
        while not _take(connection, token):
            if time.monotonic() > until:
                raise StoreUnavailable(BUSY)
            time.sleep(random.uniform(0.01, 0.05))
    except RedisError as error:
        _warn(settings, error)
        return None
    return connection


def _take(connection: "Redis", token: str) -> bool:
    """Take the lock if it is free. It may be ours already, as redis-py repeats a command whose answer was lost."""
    taken = connection.set(keys.REGISTRY_LOCK, token, nx=True, ex=LOCK_SECONDS)
    return bool(taken) or connection.get(keys.REGISTRY_LOCK) == token.encode()


def _warn(settings: Settings, error: Exception) -> None:
    """Warn once per process and Redis."""
    if settings.redis_url not in _warned:
        _warned.add(settings.redis_url)
        log.warning("%s (%s)", UNGUARDED, error)


def _check_held(connection: "Redis", token: str) -> None:
    from redis.exceptions import RedisError

    try:
        if connection.eval(_EXTEND, 1, keys.REGISTRY_LOCK, token, str(LOCK_SECONDS)):
            return
    except RedisError as error:
        raise StoreUnavailable(BUSY) from error
    raise StoreUnavailable(BUSY)


def _release(connection: "Redis", token: str) -> None:
    from redis.exceptions import RedisError

    with suppress(RedisError):  # then it ends by itself
        connection.eval(_RELEASE, 1, keys.REGISTRY_LOCK, token)
