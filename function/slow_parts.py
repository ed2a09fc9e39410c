"""What may wait for the object store: it has threads of its own, so that a slow store delays nothing else.

A request to a store that does not answer lasts some 10 seconds. If such requests were in the pool of all others, 40 of
them would stop every status and every result.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from anyio import CapacityLimiter, to_thread

from upres.core import keys, registry
from upres.function.services import Services
from upres.function.threads import Pool, Turns

THREADS = 20
"""Requests of one kind that may wait for the object store at once; others wait for them, without a thread."""
KEPT_SECONDS = 1.0
"""Seconds for which the answer to a look at the store is kept."""
LARGE_BODY = 2_000_000
"""Bytes of an image in a body of which one client has one in work at a time: hashing and sending a larger one take tens
of milliseconds."""
Value = TypeVar("Value")


class Shared(Generic[Value]):
    """A value that all requests share: one thread looks it up, and the value or the error is kept for KEPT_SECONDS."""

    def __init__(self, look: Callable[[], Value]) -> None:
        self._look = look
        self._limiter = CapacityLimiter(1)
        self._looking: asyncio.Task[Value] | None = None
        self._until = 0.0

    async def get(self) -> Value:
        """Return the value; requests that come while it is looked up wait for the same look. Raises what it raises."""
        if self._looking is None or (self._looking.done() and time.monotonic() > self._until):
            self._looking = asyncio.create_task(self._run())
        return await asyncio.shield(self._looking)

    async def _run(self) -> Value:
        try:
            return await to_thread.run_sync(self._look, limiter=self._limiter)
        finally:
            self._until = time.monotonic() + KEPT_SECONDS


class SlowParts:
    """The slow parts of one process of the function."""

    def __init__(self, services: Services) -> None:
        self.inline = Pool(THREADS)
        """Submissions whose image is in the request, since it is put into the store; and estimates."""
        self.large = Turns(1)
        """The turns of images of more than LARGE_BODY bytes."""
        self.other = Pool(THREADS)
        """Other submissions. They ask the store only for a model that no worker serves."""
        self.ready = Shared(lambda: _check(services))
        """Whether Redis and the object store answer. Raises StoreUnavailable or redis-py's errors."""
        self.models = Shared(lambda: registry.index(services.store))
        """The index of the models. Raises StoreUnavailable or ModelError."""


def _check(services: Services) -> None:
    services.redis.set(keys.idempotency("readyz"), 1, ex=10)  # a PING is answered also by a Redis that refuses writes
    services.store.ping()
