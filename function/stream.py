"""Server-sent events of a job: replay the stream, then follow it.

The stream is the truth and pub/sub only the wake-up: a follower reads the stream at its own pace, so
a slow browser costs nothing but its own connection, and a lost wake-up is made good at the next
heartbeat. One pattern subscription per process serves all followers: even a million jobs a day publish
only some hundred events a second.
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
from upres.core.queue import connect_async, connect_quickly
from upres.core.schema import TERMINAL
from upres.core.settings import Settings

log = logging.getLogger("upres.function")

HEARTBEAT_SECONDS = 15
"""Shorter than the idle timeouts of common proxies (60 s and, on some mobile networks, 30 s)."""
POLL_SECONDS = 20
"""How long a gateway that buffers is kept waiting: API Gateway gives up after 30."""
ANSWER_SECONDS = 4
"""People want an answer."""
RECONNECT_SECONDS = 0.25
MAX_RECONNECT_SECONDS = 5
READERS = 2
"""Connections that read, in turn for all followers."""
MAX_READ = 500
"""Events that are read at once: a reader that stalls holds no more of them back."""
QUIET_SECONDS = 30
"""A subscription that brought nothing for so long may be dead: it is made anew."""
Wakeups = defaultdict[str, set[asyncio.Event]]
"""By job."""
_TERMINAL = re.compile(rb'"type":"(?:succeeded|failed|cancelled)"')
_EVENT_ID = re.compile(r"[0-9]{1,19}-[0-9]{1,19}")


def check_id(event_id: str | None) -> str:
    """Last-Event-ID → a stream id; START when there is none. Raises InvalidEventId."""
    if not event_id:
        return events.START
    if not _EVENT_ID.fullmatch(event_id):
        raise InvalidEventId("Last-Event-ID must be the id of an event of this job, like 1700000000000-0.")
    return event_id


def reached(event_id: str, last_id: str) -> bool:
    """Whether a stream id is at or after another: ids are two numbers, compared as such."""
    return _numbers(event_id) >= _numbers(last_id)


class Frame(NamedTuple):
    """One event as a server-sent event (WHATWG HTML, section 9.2); a `message` event, its type is in the JSON."""

    id: str
    terminal: bool
    text: str


def frames(entries: Any) -> list[Frame]:
    """Stream entries as redis-py gives them → frames; what is stored is what is sent."""
    found = []
    for raw_id, fields in entries:
        event_id = raw_id.decode()
        text = f"id: {event_id}\ndata: {fields[b'data'].decode()}\n\n"
        found.append(Frame(event_id, fields[b"type"].decode() in TERMINAL, text))
    return found


def poll(settings: Settings, job_id: str, after: str) -> list[Frame]:
    """The job's events after an id, as soon as there is one; empty after POLL_SECONDS."""
    with connect_quickly(settings, POLL_SECONDS + 5) as connection:
        answer: Any = connection.xread({keys.events(job_id): after}, MAX_READ, int(POLL_SECONDS * 1000))
        if not answer:
            leases.expire(connection, job_id)
    return frames(answer[0][1]) if answer else []


def wait(settings: Settings, job_id: str, seconds: float) -> bool:
    """Whether a job ends within so many seconds."""
    after, deadline = events.START, time.monotonic() + seconds
    with connect_quickly(settings, seconds + 5) as connection:
        while (left := deadline - time.monotonic()) > 0:
            answer: Any = connection.xread({keys.events(job_id): after}, block=max(1, int(left * 1000)))
            entries = events.parse(answer[0][1]) if answer else []
            if entries and events.is_terminal(entries[-1][1]):
                return True
            after = entries[-1][0] if entries else after
    return False


class Hub:
    """Follows any number of jobs of one process; belongs to the event loop that runs it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._redis = connect_async(settings, READERS)
        self._subscriber = connect_async(settings, 1, seconds=None)
        self._followers: Wakeups = defaultdict(set)
        self._waiting: Wakeups = defaultdict(set)
        self._listener: asyncio.Task[None] | None = None
        self._published = 0
        self._reads: dict[tuple[str, str, int], asyncio.Task[list[Frame]]] = {}

    @property
    def subscribers(self) -> int:
        """Open streams."""
        return sum(map(len, list(self._followers.values())))

    async def follow(self, job_id: str, after: str) -> AsyncGenerator[str, None]:
        """Frames of the job's events after an id, comments while nothing happens; ends with the job."""
        self._begin_to_listen()
        failures = 0
        with self._wakeups(self._followers, job_id) as wakeup:
            while True:
                wakeup.clear()
                try:
                    fresh = await self._read(job_id, after)
                except (RedisError, OSError):
                    failures += 1
                    yield ": waiting for the queue\n\n"
                    await asyncio.sleep(_pause(failures))
                    continue
                failures = 0
                for frame in fresh:
                    yield frame.text
                    after = frame.id
                if fresh and fresh[-1].terminal:
                    return
                if len(fresh) < MAX_READ and not await _set_soon(wakeup):
                    if await self._is_over(job_id, after):
                        return
                    await self._expire(job_id)
                    yield ": still here\n\n"

    async def ended(self, job_id: str) -> None:
        """Return once the job has ended. Raises QueueUnavailable or redis-py's errors."""
        self._begin_to_listen()
        with self._wakeups(self._waiting, job_id) as wakeup:
            while True:
                wakeup.clear()
                _, last = map(frames, await self.ends(job_id))
                if last and last[0].terminal:
                    return
                await _set_soon(wakeup)

    async def ends(self, job_id: str) -> Any:
        """The first and the last entry of the job's stream, each in a list that is empty when there is none.

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
        """The job's events after an id. Raises redis-py's errors or TimeoutError, before a proxy loses patience.

        Whoever was woken by the same publication shares one read.
        """
        place = (job_id, after, self._published)
        if place not in self._reads:
            self._reads[place] = asyncio.create_task(self._fetch(job_id, after))
            self._reads[place].add_done_callback(lambda task: self._forget(place, task))
        return await asyncio.shield(self._reads[place])

    async def _fetch(self, job_id: str, after: str) -> list[Frame]:
        async with asyncio.timeout(HEARTBEAT_SECONDS):
            return frames(await self._redis.xrange(keys.events(job_id), min=f"({after}", count=MAX_READ))

    def _forget(self, place: tuple[str, str, int], task: "asyncio.Task[list[Frame]]") -> None:
        del self._reads[place]
        if not task.cancelled():
            task.exception()  # told to whoever still waits for it

    async def close(self) -> None:
        """Let go of Redis."""
        if self._listener:
            self._listener.cancel()
            with suppress(asyncio.CancelledError):
                await self._listener
        await self._redis.aclose()
        await self._subscriber.aclose()

    async def _is_over(self, job_id: str, after: str) -> bool:
        """Whether a quiet job will stay so: it ended before the id asked for, or its stream expired."""
        with suppress(RedisError, OSError):
            last = events.parse(await self._redis.xrevrange(keys.events(job_id), count=1))
            return not last or (events.is_terminal(last[0][1]) and reached(after, last[0][0]))
        return False

    async def _expire(self, job_id: str) -> None:
        """End a job whose deadline passed while no worker was there to say so."""
        with suppress(RedisError, OSError):
            deadline = await self._redis.zscore(keys.DEADLINES, job_id)
            if deadline and deadline < time.time() * 1000:
                await asyncio.to_thread(_expire, self._settings, job_id)

    def _begin_to_listen(self) -> None:
        if self._listener is None:
            self._listener = asyncio.create_task(self._listen())

    @contextmanager
    def _wakeups(self, place: Wakeups, job_id: str) -> Iterator[asyncio.Event]:
        """An event that is set whenever something may have been published about the job."""
        wakeup = asyncio.Event()
        place[job_id].add(wakeup)
        try:
            yield wakeup
        finally:
            place[job_id].discard(wakeup)
            if not place[job_id]:
                del place[job_id]

    async def _listen(self) -> None:
        """Wake the followers of each job that something is published about; reconnect for ever."""
        failures = 0
        while True:
            try:
                async with self._subscriber.pubsub() as pubsub:
                    await pubsub.psubscribe(keys.channel("*"))
                    while message := await pubsub.get_message(timeout=QUIET_SECONDS):
                        self._wake(message)
                        failures = 0
            except (RedisError, OSError):
                failures += 1
                await asyncio.sleep(_pause(failures))
            except Exception:  # a listener that ended would delay every event to the next heartbeat
                log.exception("the subscription failed")
                await asyncio.sleep(RECONNECT_SECONDS)

    def _wake(self, message: dict[str, Any]) -> None:
        self._published += 1
        if message["type"] == "psubscribe":  # whatever was published before this was missed
            places = [*self._followers.values(), *self._waiting.values()]
            wakeups = [wakeup for place in places for wakeup in place]
        else:
            job_id = message["channel"].decode(errors="replace").removeprefix(keys.channel(""))
            wakeups = list(self._followers.get(job_id, ()))
            if _TERMINAL.search(message["data"]):
                wakeups += self._waiting.get(job_id, ())
        for wakeup in wakeups:
            wakeup.set()


async def _set_soon(wakeup: asyncio.Event) -> bool:
    """Whether it is set before a proxy loses patience."""
    with suppress(TimeoutError):
        return await asyncio.wait_for(wakeup.wait(), HEARTBEAT_SECONDS)
    return False


def _expire(settings: Settings, job_id: str) -> None:
    with connect_quickly(settings) as connection:
        leases.expire(connection, job_id)


def _pause(failures: int) -> float:
    """Seconds before the next attempt: longer each time, and not the same for all."""
    longest = min(MAX_RECONNECT_SECONDS, RECONNECT_SECONDS * 2.0 ** min(failures, 10))
    return longest * random.uniform(0.5, 1)


def _numbers(event_id: str) -> list[int]:
    return [int(number) for number in event_id.split("-")]
