"""Ends open event streams whose API key was revoked, or whose token was signed with a secret that was replaced."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from upres.core import keys
from upres.function.access import Permit

if TYPE_CHECKING:
    from redis.asyncio import Redis

CHECK_SECONDS = 1.0
"""Seconds between two checks, each of which is one round trip to Redis for all streams of the process."""


class Watched:
    """One stream: `void` becomes true when its permit is valid no more, and its wake-up is set."""

    def __init__(self, permit: Permit, wakeup: asyncio.Event) -> None:
        self.permit, self.void = permit, False
        self._wakeup = wakeup

    def end(self) -> None:
        """End the stream."""
        self.void = True
        self._wakeup.set()


class Revocation:
    """Checks the permits of all streams of one process, while there are any. For one event loop."""

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis
        self._streams: set[Watched] = set()
        self._task: asyncio.Task[None] | None = None

    @contextmanager
    def watch(self, permit: Permit, wakeup: asyncio.Event) -> Iterator[Watched]:
        """Watch a stream during the block. Without an owner nothing can be revoked."""
        watched = Watched(permit, wakeup)
        if permit.owner is not None:
            self._streams.add(watched)
            self._task = self._task or asyncio.create_task(self._check_often())
        try:
            yield watched
        finally:
            self._streams.discard(watched)

    async def close(self) -> None:
        """Stop to check."""
        if self._task:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _check_often(self) -> None:
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            with suppress(RedisError, OSError):  # while Redis is away, nobody can revoke a key
                await self._check()

    async def _check(self) -> None:
        owners = list({watched.permit.owner for watched in self._streams if watched.permit.owner})
        if not owners:
            return
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.get(keys.JOB_SIGNING_KEY)
            for owner in owners:
                pipeline.hget(keys.API_KEYS, owner)
            secret, *found = await pipeline.execute()
        known = {owner for owner, key in zip(owners, found, strict=True) if key}
        for watched in list(self._streams):
            permit = watched.permit
            if (permit.owner in owners and permit.owner not in known) or permit.secret not in (None, secret):
                watched.end()
