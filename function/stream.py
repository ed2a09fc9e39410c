"""Server-sent events of a job: replay the events in its Redis stream, then follow it.

Events are read from the stream; pub/sub only wakes the subscribers up. So each subscriber reads at its own pace, a slow
browser costs nothing but its own connection, and a lost wake-up delays events until the next heartbeat only. One
pattern subscription per process serves all subscribers: even a million jobs a day publish only some hundred events a
second.
"""

import asyncio
import logging
import random
import re
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from redis.exceptions import RedisError

from upres.core import events, keys, leases
from upres.core.errors import InvalidEventId, QueueUnavailable
from upres.core.queue import connect_async, connect_with_timeout
from upres.core.schema import TERMINAL
from upres.core.settings import Settings
from upres.function.access import Permit
from upres.function.revocation import Revocation

log = logging.getLogger("upres.function")

HEARTBEAT_SECONDS = 15
"""Seconds without events after which a comment is sent: below the idle timeouts of common proxies (60 s) and of some
mobile networks (30 s)."""
ANSWER_SECONDS = 4
"""Timeout in seconds for a read from Redis that a client waits for; then it gets a 503."""
RECONNECT_SECONDS = 0.25
"""Pause in seconds before the first reconnection to Redis; it doubles with each failure."""
MAX_RECONNECT_SECONDS = 5
"""Maximum pause in seconds before a reconnection to Redis."""
READERS = 2
"""Number of connections to Redis that read for all subscribers of the process, one read at a time."""
TOGETHER = 20
"""Most events that are sent as one piece. A client that does not read holds one in memory, besides what was read."""
MAX_READ = 500
"""Maximum number of events in one read, which limits the memory that a stalled subscriber holds."""
QUIET_SECONDS = 30
"""A subscription that received no message for this many seconds may be dead, and is renewed."""
ANYBODY = Permit()
Wakeups = defaultdict[str, set[asyncio.Event]]
"""Job id → the wake-ups of its subscribers."""
_TERMINAL = re.compile(rb'"type":"(?:succeeded|failed|cancelled)"')
_EVENT_ID = re.compile(r"[0-9]{1,19}-[0-9]{1,19}")


def check_id(event_id: str | None) -> str:
    """Return Last-Event-ID as a stream id; events.START when it is missing or empty. Raises InvalidEventId."""
    if not event_id:
        return events.START
    if not _EVENT_ID.fullmatch(event_id):
        raise InvalidEventId("Last-Event-ID must be the id of an event of this job, like 1700000000000-0.")
    return event_id


def reached(event_id: str, last_id: str) -> bool:
    """Whether `event_id` is equal to or after `last_id`. The two numbers of an id are compared as numbers."""
    return _numbers(event_id) >= _numbers(last_id)


class Frame(NamedTuple):
    """One event as the text of a server-sent event (WHATWG HTML, section 9.2), of type `message`.

    `terminal` says whether the event ends its job. The type of the event is in the JSON only.
    """

    id: str
    terminal: bool
    text: str


def frames(entries: Any) -> list[Frame]:
    """Convert stream entries as redis-py returns them to frames. The stored JSON is sent without parsing it."""
    found = []
    for raw_id, fields in entries:
        event_id = raw_id.decode()
        data = fields.get(events.DATA, b"{}").decode(
            errors="replace"
        )  # {}: an event without a type, which readers skip
        kind = fields.get(events.TYPE, b"").decode(errors="replace")
        found.append(Frame(event_id, kind in TERMINAL, f"id: {event_id}\ndata: {data}\n\n"))
    return found


class Hub:
    """Serves all event streams of one process. It may be used from one event loop only."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._redis = connect_async(settings, READERS)
        self._subscriber = connect_async(settings, 1, seconds=None)
        self._revocation = Revocation(self._redis)
        self._followers: Wakeups = defaultdict(set)
        self._waiting: Wakeups = defaultdict(set)
        self._listener: asyncio.Task[None] | None = None
        self._published = 0
        self._stopping = False
        self._reads: dict[tuple[str, str, int], asyncio.Task[list[Frame]]] = {}

    @property
    def subscribers(self) -> int:
        """Number of open event streams."""
        return sum(map(len, list(self._followers.values())))

    async def follow(self, job_id: str, after: str, permit: Permit = ANYBODY) -> AsyncGenerator[str, None]:
        """Yield the job's events after an id as text, and a comment every HEARTBEAT_SECONDS without events.

        It ends after the terminal event, when the permit becomes void, or when the process stops. It does not raise
        when Redis fails: it sends comments and retries.
        """
        self._begin_to_listen()
        failures = 0
        with self._wakeups(self._followers, job_id) as wakeup, self._revocation.watch(permit, wakeup) as watched:
            while not (self._stopping or watched.void):
                wakeup.clear()
                try:
                    fresh = await self._read(job_id, after)
                except (RedisError, OSError):
                    failures += 1
                    yield ": waiting for the queue\n\n"
                    await _set_soon(wakeup, _pause(failures))
                    continue
                failures = 0
                if fresh:
                    for first in range(0, len(fresh), TOGETHER):
                        yield "".join(frame.text for frame in fresh[first : first + TOGETHER])
                    after = fresh[-1].id
                    if fresh[-1].terminal:
                        return
                if len(fresh) < MAX_READ and not await _set_soon(wakeup, HEARTBEAT_SECONDS):
                    if await self._is_over(job_id, after):
                        return
                    await self._expire(job_id)
                    yield ": still here\n\n"

    async def ended(self, job_id: str) -> bool:
        """Wait until the job has ended, or the process stops. Return whether the job has ended.

        Raises QueueUnavailable or redis-py's errors.
        """
        self._begin_to_listen()
        with self._wakeups(self._waiting, job_id) as wakeup:
            while not self._stopping:
                wakeup.clear()
                _, last = map(frames, await self.first_and_last(job_id))
                if last and last[0].terminal:
                    return True
                await _set_soon(wakeup, HEARTBEAT_SECONDS)
        return False

    async def first_and_last(self, job_id: str) -> Any:
        """Read the first and the last entry of the job's stream, each in a list that is empty when there is no stream.

        Raises QueueUnavailable or redis-py's errors.
        """
        try:
            async with asyncio.timeout(ANSWER_SECONDS), self._redis.pipeline(transaction=False) as pipeline:
                pipeline.xrange(keys.events(job_id), count=1)
                pipeline.xrevrange(keys.events(job_id), count=1)
                return await pipeline.execute()
        except TimeoutError:
            raise QueueUnavailable("The job queue does not answer; try again in a few seconds.") from None

    async def _read(self, job_id: str, after: str) -> list[Frame]:
        """Read the job's events after an id. Subscribers that were woken by the same publication share one read.

        Raises redis-py's errors, or TimeoutError after HEARTBEAT_SECONDS, before a proxy closes the connection.
        """
        read_key = (job_id, after, self._published)
        if read_key not in self._reads:
            self._reads[read_key] = asyncio.create_task(self._fetch(job_id, after))
            self._reads[read_key].add_done_callback(lambda task: self._forget(read_key, task))
        return await asyncio.shield(self._reads[read_key])

    async def _fetch(self, job_id: str, after: str) -> list[Frame]:
        async with asyncio.timeout(HEARTBEAT_SECONDS):
            return frames(await self._redis.xrange(keys.events(job_id), min=f"({after}", count=MAX_READ))

    def _forget(self, read_key: tuple[str, str, int], task: "asyncio.Task[list[Frame]]") -> None:
        del self._reads[read_key]
        if not task.cancelled():
            task.exception()  # mark it as retrieved, else asyncio logs it when no subscriber waits any more

    def stop(self) -> None:
        """End all streams and waits, because the process stops; clients reconnect to another one."""
        self._stopping = True
        self._wake_all()

    async def close(self) -> None:
        """Stop to listen, and close the connections to Redis."""
        await self._revocation.close()
        if self._listener:
            self._listener.cancel()
            with suppress(asyncio.CancelledError):
                await self._listener
        await self._redis.aclose()
        await self._subscriber.aclose()

    async def _is_over(self, job_id: str, after: str) -> bool:
        """Whether no event can follow: the terminal event is not after the given id, or the stream has expired."""
        with suppress(RedisError, OSError):
            last = events.parse(await self._redis.xrevrange(keys.events(job_id), count=1))
            return not last or (events.is_terminal(last[0][1]) and reached(after, last[0][0]))
        return False

    async def _expire(self, job_id: str) -> None:
        """Fail a job whose deadline has passed, in case no worker runs that would do it."""
        with suppress(RedisError, OSError):
            deadline = await self._redis.zscore(keys.DEADLINES, job_id)
            if deadline and deadline < time.time() * 1000:
                await asyncio.to_thread(_expire, self._settings, job_id)

    def _begin_to_listen(self) -> None:
        if self._listener is None:
            self._listener = asyncio.create_task(self._listen())

    @contextmanager
    def _wakeups(self, registered: Wakeups, job_id: str) -> Iterator[asyncio.Event]:
        """Register a wake-up: an asyncio event that is set when an event of the job may have been published."""
        wakeup = asyncio.Event()
        registered[job_id].add(wakeup)
        try:
            yield wakeup
        finally:
            registered[job_id].discard(wakeup)
            if not registered[job_id]:
                del registered[job_id]

    async def _listen(self) -> None:
        """Wake the subscribers of each job for which an event is published; reconnect without limit."""
        failures = 0
        while True:
            try:
                async with self._subscriber.pubsub() as pubsub:
                    async with asyncio.timeout(ANSWER_SECONDS):  # the connection may die while it is opened
                        await pubsub.psubscribe(keys.channel("*"))
                    while message := await pubsub.get_message(timeout=QUIET_SECONDS):
                        self._wake(message)
                        failures = 0
            except (RedisError, OSError):
                failures += 1
                await asyncio.sleep(_pause(failures))
            except Exception:  # without a listener every event would wait for the next heartbeat
                log.exception("the subscription failed")
                await asyncio.sleep(RECONNECT_SECONDS)

    def _wake(self, message: dict[str, Any]) -> None:
        self._published += 1
        if message["type"] == "psubscribe":
            self._wake_all()  # events that were published before this were missed
            return
        job_id = message["channel"].decode(errors="replace").removeprefix(keys.channel(""))
        wakeups = list(self._followers.get(job_id, ()))
        if _TERMINAL.search(message["data"]):
            wakeups += self._waiting.get(job_id, ())
        for wakeup in wakeups:
            wakeup.set()

    def _wake_all(self) -> None:
        for one_job in (*self._followers.values(), *self._waiting.values()):
            for wakeup in one_job:
                wakeup.set()


async def _set_soon(wakeup: asyncio.Event, seconds: float) -> bool:
    """Wait for a wake-up for at most `seconds`. Return whether it was set."""
    with suppress(TimeoutError):
        return await asyncio.wait_for(wakeup.wait(), seconds)
    return False


def _expire(settings: Settings, job_id: str) -> None:
    with connect_with_timeout(settings) as connection:
        leases.expire(connection, job_id)


def _pause(failures: int) -> float:
    """Return the seconds before the next attempt: exponential backoff with jitter."""
    longest = min(MAX_RECONNECT_SECONDS, RECONNECT_SECONDS * 2.0 ** min(failures, 10))
    return longest * random.uniform(0.5, 1)


def _numbers(event_id: str) -> list[int]:
    return [int(number) for number in event_id.split("-")]
