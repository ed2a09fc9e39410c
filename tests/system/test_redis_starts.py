"""Redis starts again: it loads its data for long, or its append-only file was torn by a power failure."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import requests
from redis import Redis

from tests.support.servers import JOB
from tests.support.waiting import wait_until
from upres.client import Client
from upres.core import keys
from upres.core.queue import connect
from upres.core.schema import Event, Started
from upres.embedded.child import Child, ChildDied, accepts
from upres.embedded.stack import REDIS_SERVER, Local, redis_server

LOADING_SECONDS = 17
"""Longer than a lease of 12 seconds."""
PIECES = 170
"""Keys that Redis loads, with a pause before each."""
PIECE = 8192
"""Bytes of each, so that Redis answers (LOADING) between two of them."""


@pytest.fixture
def own() -> Iterator[Local]:
    """A stack for one test, which stops its Redis."""
    with Local() as running:
        yield running


def start_redis(own: Local, *options: str, seconds: float = 20) -> None:
    """Start the stack's Redis again, with more options. Raises ChildDied."""
    command = [redis_server(), "--bind", "127.0.0.1", "--port", str(own.redis_port), "--dir", str(own.folder)]
    child = Child("redis", [*command, "--appendonly", "yes", "--save", "", *options], own.environment, own.folder)
    own.children["redis"] = child
    child.wait_ready(lambda: accepts(own.redis_port), seconds)


@contextmanager
def loading_slowly(own: Local) -> Iterator[None]:
    """Restart Redis, which needs LOADING_SECONDS to load its data, for the block; then wait until it has."""
    own.kill("redis")
    pause = LOADING_SECONDS * 1_000_000 // PIECES
    start_redis(own, "--key-load-delay", str(pause), "--loading-process-events-interval-bytes", "1024")
    yield
    with Redis(port=own.redis_port) as redis:
        wait_until(lambda: redis.info("persistence")["loading"] == 0, 60)


def test_a_job_goes_on_while_redis_loads_its_data_for_17_seconds(own: Local, png: bytes) -> None:
    with connect(own.settings) as redis:
        for number in range(PIECES):
            redis.set(f"piece:{number}", os.urandom(PIECE))
        redis.bgrewriteaof()  # a file that Redis loads key by key
        wait_until(lambda: not redis.info("persistence")["aof_rewrite_in_progress"])
    seen: list[Event] = []
    with Client(own.url) as client:
        for event in client.events(client.submit(png, 8).job_id):
            seen.append(event)
            if isinstance(event, Started):
                with loading_slowly(own):
                    for refused in (
                        requests.get(f"{own.url}/readyz", timeout=20),
                        requests.post(f"{own.url}/v1/jobs", json=JOB, timeout=20),
                    ):
                        assert (refused.status_code, refused.json()["code"]) == (503, "queue_unavailable")
    assert [event.type for event in seen if event.type != "progress"] == ["queued", "started", "succeeded"]
    assert own.children["worker"].log.read_text().count("Redis is unavailable") == 1


def append_only_file(own: Local) -> Path:
    [file] = own.folder.glob("appendonlydir/*.incr.aof")
    return file


def submitted(own: Local, jobs: int) -> list[str]:
    return [requests.post(f"{own.url}/v1/jobs", json=JOB, timeout=20).json()["job_id"] for _ in range(jobs)]


def found(own: Local, ids: list[str]) -> list[bool]:
    return [requests.get(f"{own.url}/v1/jobs/{job_id}", timeout=20).ok for job_id in ids]


def test_redis_starts_with_a_torn_append_only_file_in_which_no_job_is_half(own: Local) -> None:
    """What the disk did not have yet is lost, as a whole: the last job's transaction."""
    own.stop("worker")
    ids = submitted(own, 3)
    own.kill("redis")
    file = append_only_file(own)
    data = file.read_bytes()
    begin = data.rindex(b"\r\nMULTI\r\n")
    for cut in (len(data) - 1, (len(data) + begin) // 2, begin + 20):
        file.write_bytes(data[:cut])
        own.start("redis")
        assert found(own, ids) == [True, True, False]
        with connect(own.settings) as redis:
            assert (redis.llen(keys.WAITING), redis.zcard(keys.DEADLINES)) == (2, 2)
        own.kill("redis")
    own.start("redis")


def test_the_runbook_repairs_an_append_only_file_that_ends_with_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some file systems leave zeros after a power failure; Redis does not start with them (redis/redis#5177)."""
    program, check = shutil.which("redis-server"), shutil.which("redis-check-aof")
    assert program, "redis-server is missing; docs/operations.md needs it too"
    assert check, "redis-check-aof is missing: Debian's package redis-tools has it"
    monkeypatch.setenv(REDIS_SERVER, program)
    with Local() as own:
        own.stop("worker")
        ids = submitted(own, 3)
        own.kill("redis")
        with append_only_file(own).open("ab") as file:
            file.write(bytes(4096))
        with suppress(ChildDied):  # or it accepts connections before it has read the file
            start_redis(own)
        with pytest.raises(ChildDied, match="redis-check-aof --fix"):
            own.children["redis"].wait_ready(lambda: False, 20)
        own.stop("redis")
        manifest = own.folder / "appendonlydir" / "appendonly.aof.manifest"
        subprocess.run([check, "--fix", str(manifest)], input=b"y\n", check=True, capture_output=True, timeout=30)
        own.start("redis")
        assert found(own, ids) == [True] * 3
