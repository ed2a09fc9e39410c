"""Verdicts on model versions: whether workers of a kind may load one. One worker tries it, in a process of its own.

The worker that tries a version has a lease. When it dies, the lease expires and another worker tries; after MAX_TRIES
without an answer the verdict is against the version.
"""

import secrets
from contextlib import suppress
from typing import Any, cast

from pydantic import Field
from redis import Redis
from redis.exceptions import RedisError

from upres.core import keys
from upres.core.schema import TolerantModel
from upres.core.tolerance import or_none, readable

MAX_TRIES = 3
"""Tries that may end without an answer, because the worker died, or the process was killed or took too long."""
TRIES = "tries "
"""Before the kind of worker: the field with the number of tries without an answer."""


class Verdict(TolerantModel):
    """What a trial of a version found."""

    well: bool = Field(description="Whether workers may load the version.")
    version: str = Field(description="Name of the version.")
    kind: str = Field(description="Kind of worker that it holds for: device and releases of the libraries.")
    reason: str = Field("", description="Why they may not.")


def read(connection: Redis, name: str, digest: str, kind: str) -> Verdict | None:
    """Read the verdict on a version for a kind of worker; None without one, or if it cannot be read."""
    raw = cast("bytes | None", connection.hget(keys.verdicts(name, digest), kind))
    return or_none(Verdict, raw) if raw else None


def against(connection: Redis, name: str, digest: str) -> list[Verdict]:
    """Return the verdicts against a version, of all kinds of workers."""
    fields = cast("dict[bytes, bytes]", connection.hgetall(keys.verdicts(name, digest)))
    found = readable(Verdict, [raw for field, raw in fields.items() if not field.startswith(TRIES.encode())])
    return [verdict for verdict in found if not verdict.well]


def drop(connection: Redis, name: str, digest: str) -> bool:
    """Delete all verdicts on a version, so that it is tried again. Returns whether one of them was against it."""
    refused = bool(against(connection, name, digest))
    connection.delete(keys.verdicts(name, digest))
    return refused


class Trying:
    """The right to try a version, for one worker of a kind at a time. Methods raise redis-py's errors."""

    def __init__(self, connection: Redis, name: str, digest: str, kind: str) -> None:
        self._connection, self._kind = connection, kind
        self._verdicts, self._lease = keys.verdicts(name, digest), keys.trying(name, digest, kind)
        self._token = secrets.token_hex(8)
        self.tries = 0
        """Number of tries that have not answered, with this one."""

    def begin(self) -> bool:
        """Take the lease; returns False when another worker has it."""
        if not self._connection.set(self._lease, self._token, nx=True, ex=keys.TRYING_SECONDS):
            return False
        self.tries = int(cast(Any, self._connection.hincrby(self._verdicts, TRIES + self._kind, 1)))
        self._connection.expire(self._verdicts, keys.VERDICT_SECONDS)
        return True

    def renew(self) -> None:
        """Keep the lease, if Redis answers. If another worker has it, both try: that costs time, and nothing else."""
        with suppress(RedisError):
            self._connection.expire(self._lease, keys.TRYING_SECONDS)

    def answer(self, verdict: Verdict) -> None:
        """Store what was found."""
        self._connection.hset(self._verdicts, self._kind, verdict.model_dump_json())
        self._connection.hdel(self._verdicts, TRIES + self._kind)
        self._connection.expire(self._verdicts, keys.VERDICT_SECONDS)

    def forget(self) -> None:
        """Do not count this try: it says nothing about the version."""
        self._connection.hincrby(self._verdicts, TRIES + self._kind, -1)

    def end(self) -> None:
        """Give the lease back, unless another worker has it."""
        if self._connection.get(self._lease) == self._token.encode():
            self._connection.delete(self._lease)
