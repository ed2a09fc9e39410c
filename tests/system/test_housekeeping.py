"""After 2000 jobs, every Redis key that remains expires, and the worker uses hardly more memory, files, threads."""

import inspect
import io
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from PIL import Image
from redis import Redis

from tests.support.paths import ROOT
from tests.support.waiting import wait_until
from upres.client import Client
from upres.core import keys
from upres.core.queue import connect
from upres.embedded.stack import Local

JOBS = 2000
LASTING = {
    name.encode()
    for name in (
        "rq:queues",
        keys.WORKERS,
        keys.API_KEYS,
        keys.JOB_SIGNING_KEY,
        keys.WEBHOOK_SIGNING_KEY,
        keys.JOB_COUNTS,
    )
}
"""Redis keys without expiry; their size does not depend on the number of jobs."""


def dot(number: int) -> bytes:
    """Return a PNG of 4×4 pixels; the colour depends on the number and repeats."""
    pixels = np.full((4, 4, 3), number % (JOBS // 10) % 256, np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def fresh() -> Iterator[Local]:
    """An upres without the keys of other tests in its Redis."""
    with Local() as local:
        yield local


def test_redis_keys_and_worker_memory_stay_bounded_after_2000_jobs(fresh: Local) -> None:
    process = fresh.children["worker"].process
    with connect(fresh.settings) as redis, Client(fresh.url) as client, ThreadPoolExecutor(8) as pool:

        def submit(numbers: range) -> list[str]:
            return list(pool.map(lambda number: client.submit(dot(number), 2).job_id, numbers))

        ids = submit(range(200))
        wait_until(lambda: done(redis))
        files, threads, memory = process.num_fds(), process.num_threads(), process.memory_info().rss
        ids += submit(range(200, JOBS))
        wait_until(lambda: done(redis), 90)
        assert process.num_fds() <= files + 10
        assert process.num_threads() <= threads + 10
        assert process.memory_info().rss <= memory + (64 << 20)
        streams = {keys.events(job_id).encode() for job_id in ids}
        offers = set(redis.scan_iter(match=keys.served_model("*")))  # one key per model
        left = [key for key in redis.scan_iter(count=1000) if key not in LASTING | offers]
        assert [key for key in left if redis.ttl(key) == -1] == []  # every other key expires
        letters = {
            keys.record(job_id.decode()).encode() for job_id in cast("list[bytes]", redis.zrange(keys.DEAD, 0, -1))
        }
        left = [key for key in left if key not in letters | {keys.DEAD.encode()}]
        known = (
            b"upres:key:",
            b"upres:job:",
            b"upres:work:",
            b"upres:worker:",
            b"upres:idempotency:",
            b"upres:tile:",
            b"upres:rate:",
            b"upres:looked",
            b"upres:audited",
            b"upres:deaths",
        )
        assert [key for key in left if key not in streams and not key.startswith(known)] == []
        assert [key for key in left if key.endswith((b":run", b":parked"))] == []


def done(redis: Redis) -> bool:
    return not (redis.llen(keys.WAITING) or redis.llen(keys.POPPED) or redis.zcard(keys.DEADLINES))


def test_the_bucket_expires_every_object_except_models() -> None:
    """Compares the prefixes in core/keys.py with the lifecycle rules in infra/aws/bucket.yml."""
    text = Path(ROOT, "infra/aws/bucket.yml").read_text()
    days = {prefix: int(days) for prefix, days in re.findall(r"Prefix: (\w+)/\s.*\s+ExpirationInDays: (\d+)", text)}
    prefixes = set(re.findall(r'return f"(\w+)/', inspect.getsource(keys)))
    assert set(days) == prefixes - {"models"}
    assert days["uploads"] == days["results"] == keys.OBJECT_DAYS
    assert keys.OBJECT_DAYS * keys.DAY >= keys.REUSE_SECONDS + keys.EVENTS_SECONDS
    assert keys.OBJECT_DAYS * keys.DAY >= keys.MAX_DEADLINE_SECONDS + keys.EVENTS_SECONDS
