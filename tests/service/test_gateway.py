"""Tests of event streams to thousands of clients of one process, and to clients that stop reading."""

import asyncio
import resource
import socket
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from redis import Redis

from benchmarks.gateway import Subscribers
from tests.support.leasing import submit
from tests.support.servers import patched_function
from tests.support.streams import follow, frames
from upres.core import events, keys
from upres.core.schema import Cancelled, Progress
from upres.embedded.stack import Local

pytestmark = pytest.mark.without_worker

MANY = 2000
STALLED_SECONDS = 2


@pytest.fixture
def gateway(local: Local, tmp_path: Path) -> Iterator[tuple[str, psutil.Process]]:
    """A separate function that soon disconnects clients that stop reading: its URL and its process."""
    with patched_function(local, tmp_path, {"STALLED_SECONDS": STALLED_SECONDS}) as patched:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)  # the function raises its limit by itself
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 10_000)), hard))
        yield patched.url, patched.child.process


def test_two_thousand_clients_need_only_a_few_redis_connections(
    local: Local, redis: Redis, gateway: tuple[str, psutil.Process]
) -> None:
    async def watch() -> None:
        await subscribers.follow(jobs, MANY)
        connections.append(_to_redis(gateway[1], local))
        for number in range(20):
            event = Progress(job_id=jobs[number], stage="upscale", percent=number)
            await asyncio.to_thread(events.append, redis, event)
        deadline = time.monotonic() + 30
        while len(subscribers.heard) < MANY and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        await subscribers.leave()

    connections = list[int]()
    jobs = [submit(redis) for _ in range(20)]
    subscribers = Subscribers(gateway[0])
    asyncio.run(watch())
    assert Counter(percent for percent, _ in subscribers.heard) == dict.fromkeys(range(20), MANY // 20)
    assert connections[0] <= 4


def _to_redis(process: psutil.Process, local: Local) -> int:
    """The number of connections that a process has to Redis."""
    port = urlsplit(local.settings.redis_url).port
    return sum(bool(one.raddr) and one.raddr.port == port for one in process.net_connections("tcp"))


def test_stalled_clients_use_little_memory_and_are_disconnected(
    local: Local, redis: Redis, gateway: tuple[str, psutil.Process]
) -> None:
    job_id = _long(redis)
    url, process = gateway
    with _stalled(url, job_id):  # the first client allocates memory that is not freed afterwards
        pass
    before = process.memory_info().rss
    readers = [_stalled(url, job_id) for _ in range(20)]
    deadline = time.monotonic() + 20
    while _open(process) < len(readers) and time.monotonic() < deadline:
        time.sleep(0.01)
    with follow(local, job_id) as response:  # another client receives all events and the new one
        live = frames(response)
        for _ in range(LONG + 1):
            next(live)
        events.append(redis, Cancelled(job_id=job_id))
        assert "cancelled" in str(next(live))
    assert (process.memory_info().rss - before) / len(readers) < 1 << 20
    deadline = time.monotonic() + 20
    while _open(process) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _open(process), "they are still there"
    for reader in readers:
        reader.close()


LONG = 20_000


def _long(redis: Redis) -> str:
    """Submit a job with more events than the buffers of two sockets can hold, and return its id."""
    job_id = submit(redis)
    event = Progress(job_id=job_id, stage="upscale", percent=1, notice="x" * 500).model_dump_json()
    with redis.pipeline(transaction=False) as pipeline:
        for _ in range(LONG):
            pipeline.xadd(keys.events(job_id), {"type": "progress", "once": "", "data": event})
        pipeline.execute()
    return job_id


def _stalled(url: str, job_id: str) -> socket.socket:
    """A client that requests the events and does not read the response."""
    address = urlsplit(url)
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    reader.connect((address.hostname, address.port))
    reader.sendall(f"GET /v1/jobs/{job_id}/events HTTP/1.1\r\nHost: {address.netloc}\r\n\r\n".encode())
    return reader


def _open(process: psutil.Process) -> int:
    """The number of client connections that the process has open."""
    listening = {one.laddr.port for one in process.net_connections("tcp") if one.status == psutil.CONN_LISTEN}
    return sum(
        one.laddr.port in listening and one.status == psutil.CONN_ESTABLISHED for one in process.net_connections("tcp")
    )
