"""The delay of server-sent events: from an event to 2,000 subscribers, all served by one function process.

    python -m benchmarks.gateway

Two cases: subscribers spread over 200 jobs with 40 events per second in total, and all of them on one job with two
events per second. Measured from before an event is appended until its line arrives at a subscriber. The peer is one
plain Redis pub/sub subscriber in the same run. Subscribers, Redis and the function share this machine.
"""

import argparse
import asyncio
import re
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from redis import Redis

from benchmarks.report import emit
from tests.support.leasing import submit
from upres.core import events, keys
from upres.core.queue import connect
from upres.core.schema import Progress
from upres.embedded.stack import Local

SUBSCRIBERS = 2000
SECONDS = 10
PERCENT = re.compile(rb'"percent":([0-9.]+)')


class Subscribers:
    """Clients on plain sockets that follow jobs, and record when each event arrives."""

    def __init__(self, url: str) -> None:
        self._address = urlsplit(url)
        self.heard: list[tuple[float, float]] = []
        """(percent of the event, time.perf_counter() in seconds)."""
        self.following = 0
        self._tasks: list[asyncio.Task[None]] = []

    async def follow(self, job_ids: Sequence[str], count: int) -> None:
        """Add `count` subscribers, distributed over the jobs; returns when each has received its first event."""
        self._tasks += [asyncio.create_task(self._one(job_ids[index % len(job_ids)])) for index in range(count)]
        deadline = time.monotonic() + 60
        while self.following < len(self._tasks):
            assert time.monotonic() < deadline, f"only {self.following} of {len(self._tasks)} subscribers connected"
            await asyncio.sleep(0.05)

    async def leave(self) -> None:
        """Close all subscribers."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _one(self, job_id: str) -> None:
        host, port = self._address.hostname, self._address.port
        for attempt in range(5):  # so many connections at once may exceed the listen backlog of the server
            try:
                reader, writer = await asyncio.open_connection(host, port)
                break
            except OSError:
                await asyncio.sleep(0.2 * (attempt + 1))
        writer.write(f"GET /v1/jobs/{job_id}/events HTTP/1.1\r\nHost: {self._address.netloc}\r\n\r\n".encode())
        try:
            while line := await reader.readline():
                if b'"queued"' in line:
                    self.following += 1
                elif match := PERCENT.search(line):
                    self.heard.append((float(match[1]), time.perf_counter()))
        finally:
            writer.close()


def percentile(values: Sequence[float], percent: int) -> float:
    """A percentile, 1 to 99, of at least two values."""
    return statistics.quantiles(values, n=100)[percent - 1]


async def relay(url: str, redis: Redis, jobs: int, a_second: float) -> tuple[list[float], int]:
    """Milliseconds of each event to each subscriber, and the number of Redis connections of the function."""
    before = len(redis.client_list())
    job_ids = [submit(redis) for _ in range(jobs)]
    subscribers = Subscribers(url)
    await subscribers.follow(job_ids, SUBSCRIBERS)
    connections = len(redis.client_list()) - before
    sent_at: dict[float, float] = {}
    begin = time.perf_counter()
    for number in range(int(SECONDS * a_second)):
        await asyncio.sleep(max(0.0, begin + number / a_second - time.perf_counter()))
        percent = number / 100
        sent_at[percent] = time.perf_counter()
        job_id = job_ids[number % jobs]
        await asyncio.to_thread(events.append, redis, Progress(job_id=job_id, stage="upscale", percent=percent))
    await asyncio.sleep(1)
    await subscribers.leave()
    assert len(subscribers.heard) == len(sent_at) * SUBSCRIBERS // jobs, "a subscriber did not receive all events"
    return [(at - sent_at[percent]) * 1000 for percent, at in subscribers.heard], connections


def plain(redis: Redis) -> list[float]:
    """Milliseconds from appending an event until a plain subscriber of its channel receives it."""
    job_id, times = submit(redis), []
    untyped: Any = redis
    with untyped.pubsub(ignore_subscribe_messages=True) as pubsub:
        pubsub.subscribe(keys.channel(job_id))
        pubsub.get_message(timeout=1)
        for number in range(200):
            begin = time.perf_counter()
            events.append(redis, Progress(job_id=job_id, stage="upscale", percent=number / 10))
            while not pubsub.get_message(timeout=1):
                pass
            times.append((time.perf_counter() - begin) * 1000)
    return times


def main() -> int:
    """Print one JSON line per figure."""
    argparse.ArgumentParser(prog="python -m benchmarks.gateway", description=__doc__).parse_args()
    with Local() as local, connect(local.settings) as redis:
        local.stop("worker")
        peer = "one plain pub/sub subscriber, p99, ms"
        base = percentile(plain(redis), 99)
        for name, jobs, a_second in (("200 jobs", 200, 40), ("one job", 1, 2)):
            times, connections = asyncio.run(relay(local.url, redis, jobs, a_second))
            emit(f"gateway, 2,000 subscribers, {name}: median", statistics.median(times), "ms", peer, base)
            emit(f"gateway, 2,000 subscribers, {name}: p99", percentile(times, 99), "ms", peer, base)
            emit(f"gateway, 2,000 subscribers, {name}: Redis connections", connections, "count", "at most", 4)
    return 0


if __name__ == "__main__":
    sys.exit(main())
