"""Recovery of jobs when real worker processes are killed, hang, are stopped or paused."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import BaseHTTPRequestHandler
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image
from redis import Redis

from tests.support.images import encoded, numbered_photo, opened
from tests.support.leasing import ended
from tests.support.servers import http_server
from tests.support.waiting import wait_until
from tests.support.workers import SHORT_LEASES, worker
from upres.client import Client
from upres.core import events, keys, workers
from upres.core.schema import TERMINAL, Event, Failed, Progress, Requeued, Started, Succeeded, UnknownEvent, now
from upres.embedded.stack import Local
from upres.worker.service import RESTART, STOPPED

SMALL_TILES = "--tile=96"
"""Flag of the worker: small tiles, so that a photo of ordinary size has many tiles and bands."""
KEPT = "--long-seconds=0.01"
"""Flag of the worker: it writes checkpoints for every job, because every job counts as long."""


pytestmark = pytest.mark.without_worker


@pytest.fixture
def client(local: Local) -> Iterator[Client]:
    with Client(local.url) as connected:
        yield connected


def until_tile(client: Client, job_id: str, tiles: int) -> None:
    """Wait until the job has finished at least this many tiles."""
    for event in client.events(job_id):
        assert event.type not in TERMINAL
        if isinstance(event, Progress) and event.tiles_done >= tiles:
            return


def received(client: Client, job_id: str) -> list[Event]:
    return list(client.events(job_id))


def starts(received: list[Event]) -> list[int]:
    return [event.attempt for event in received if isinstance(event, Started)]


def reasons(received: list[Event]) -> list[str]:
    return [event.reason for event in received if isinstance(event, Requeued)]


def parts(redis: Redis, job_id: str) -> str:
    """Return the list of a job's checkpoints, as Redis stores it."""
    return (cast("bytes | None", redis.hget(keys.run(job_id), "parts")) or b"").decode()


@pytest.mark.parametrize("wanted", [{"factor": 4}, {"output_width": 1000}], ids=str)
def test_another_worker_resumes_a_killed_workers_job_at_its_checkpoint(
    local: Local, client: Client, redis: Redis, wanted: Any
) -> None:
    image = numbered_photo(1)
    with worker(local, *SHORT_LEASES, SMALL_TILES, KEPT) as first:
        job_id = client.submit(image, **wanted).job_id
        wait_until(lambda: parts(redis, job_id))
        first.kill()
        with worker(local, *SHORT_LEASES, SMALL_TILES):
            ready = now()
            seen = received(client, job_id)
    assert starts(seen) == [1, 2]
    [taken] = [event.at for event in seen if isinstance(event, Started) and event.attempt == 2]
    assert (taken - ready).total_seconds() < 20
    assert reasons(seen) == ["worker_lost"]
    [resumed] = [event for event in seen if isinstance(event, Progress) and event.notice]
    assert "Resumed where the last attempt was" in (resumed.notice or "")
    assert resumed.tiles_done > 1
    large = np.asarray(opened(client.download(job_id)))
    with worker(local):
        whole = client.upscale(numbered_photo(2), **wanted).download()
    assert np.abs(large.astype(int) - np.asarray(opened(whole)))[16:].max() <= 1
    assert not list(Path(local.folder, "s3").glob(f"*/checkpoints/{job_id}/*/*"))


def test_a_job_with_a_damaged_checkpoint_succeeds_on_another_worker(local: Local, client: Client, redis: Redis) -> None:
    with worker(local, *SHORT_LEASES, SMALL_TILES, KEPT) as first:
        job_id = client.submit(numbered_photo(3), 4).job_id
        wait_until(lambda: "," in parts(redis, job_id))
        first.kill()
    [*kept] = Path(local.folder, "s3").glob(f"*/checkpoints/{job_id}/*/*.png")
    assert len(kept) > 1
    sorted(kept)[1].write_bytes(b"damaged")
    with worker(local, *SHORT_LEASES):
        seen = received(client, job_id)
    assert seen[-1].type == "succeeded"


def test_a_stopping_worker_requeues_jobs_that_exceed_the_stop_time(local: Local, client: Client) -> None:
    with worker(local, SMALL_TILES, UPRES_STOP_SECONDS="0.5") as stopped:
        job_id = client.submit(numbered_photo(4), 8).job_id
        until_tile(client, job_id, 1)
        stopped.send_signal(signal.SIGTERM)
        assert stopped.wait(10) == STOPPED
    with worker(local):
        seen = received(client, job_id)
    assert reasons(seen) == ["worker_stopping"]
    assert (starts(seen), seen[-1].type) == ([1, 2], "succeeded")


def test_one_signal_lets_jobs_finish_and_a_second_requeues_them_at_once(local: Local, client: Client) -> None:
    with worker(local, SMALL_TILES) as patient:
        job_id = client.submit(numbered_photo(5), 4).job_id
        until_tile(client, job_id, 1)
        patient.send_signal(signal.SIGTERM)
        assert patient.wait(60) == STOPPED
        assert received(client, job_id)[-1].type == "succeeded"
    with worker(local, SMALL_TILES) as hurried:
        job_id = client.submit(numbered_photo(6), 8).job_id
        until_tile(client, job_id, 1)
        hurried.send_signal(signal.SIGTERM)
        hurried.send_signal(signal.SIGINT)
        assert hurried.wait(5) == STOPPED
    assert client.status(job_id).status == "queued"
    assert client.cancel(job_id).status == "cancelled"


def test_a_stopping_worker_shows_its_state_and_takes_no_new_jobs(local: Local, client: Client, redis: Redis) -> None:
    with worker(local, SMALL_TILES, UPRES_SLOTS="2") as stopping:
        first = client.submit(numbered_photo(7), 4).job_id
        until_tile(client, first, 1)
        stopping.send_signal(signal.SIGTERM)
        wait_until(lambda: [one.state for one in workers.listing(redis) if first in one.jobs] == ["stopping"])
        later = client.submit(numbered_photo(8), 2).job_id
        assert stopping.wait(60) == STOPPED
    assert client.status(first).status == "succeeded"
    assert client.status(later).status == "queued"
    client.cancel(later)


def test_a_job_on_a_hanging_device_fails_at_its_deadline_and_worker_exits(
    local: Local, client: Client, redis: Redis
) -> None:
    with worker(local, "--device=hangs", UPRES_SLOTS="2") as hanging:
        job_id = client.submit(numbered_photo(9), 4, deadline_seconds=2).job_id
        failed = ended(redis, job_id)
        assert failed.code == "deadline_exceeded"
        assert hanging.wait(20) == RESTART


def test_a_paused_worker_cannot_change_a_job_that_another_worker_took(local: Local, client: Client) -> None:
    with worker(local, *SHORT_LEASES, SMALL_TILES) as paused:
        job_id = client.submit(numbered_photo(10), 8).job_id
        until_tile(client, job_id, 2)
        paused.send_signal(signal.SIGSTOP)
        with worker(local, *SHORT_LEASES):
            seen = received(client, job_id)
            paused.send_signal(signal.SIGCONT)
            paused.send_signal(signal.SIGTERM)
            assert paused.wait(60) == STOPPED
    assert starts(seen) == [1, 2]
    assert received(client, job_id) == seen
    assert isinstance(seen[-1], Succeeded)
    assert f"/{job_id}/2/" in seen[-1].result.sr_image_uri


def slow(seconds: float, data: Callable[[str], bytes]) -> Callable[[BaseHTTPRequestHandler], None]:
    """Return a handler that sends the response in ten parts over this many seconds."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        image = data(handler.path)
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(image)))
        handler.end_headers()
        for piece in range(10):
            time.sleep(seconds / 10)
            handler.wfile.write(image[len(image) * piece // 10 : len(image) * (piece + 1) // 10])

    return answer


def numbered(path: str) -> bytes:
    """Return a small image that is different for each path."""
    number = int(path.strip("/"))
    return encoded(Image.new("RGB", (16, 16), (number % 256, number // 256, 77)), "PNG")


def test_jobs_that_last_much_longer_than_a_lease_run_exactly_once(local: Local, client: Client) -> None:
    """100 jobs that last 20 seconds each, with leases of 2 seconds."""
    fifty = partial(worker, local, *SHORT_LEASES, "--fetch-seconds=60", UPRES_SLOTS="50")
    with http_server(slow(20, numbered)) as url, fifty(), fifty(), ThreadPoolExecutor(10) as pool:
        ids = [client.submit(f"{url}/{number}", 2).job_id for number in range(100)]
        every = list(pool.map(lambda job_id: received(client, job_id), ids))
    assert all(starts(one) == [1] and one[-1].type == "succeeded" for one in every)


def test_identical_jobs_at_the_same_time_share_one_enlargement(local: Local, client: Client) -> None:
    image = numbered_photo(11)
    with worker(local, SMALL_TILES, UPRES_SLOTS="4"), ThreadPoolExecutor(10) as pool:
        ids = list(pool.map(lambda number: client.submit(image, 4).job_id, range(10)))
        every = [received(client, job_id) for job_id in ids]
        done = [client.download(job_id) for job_id in ids]
    ends = [one[-1] for one in every]
    assert all(isinstance(end, Succeeded) for end in ends)
    assert len({end.result.sr_image_uri for end in ends if isinstance(end, Succeeded)}) == 1
    enlarged = [one for one in every if any(isinstance(event, Progress) and event.tiles_done for event in one)]
    assert len(enlarged) == 1
    assert len(set(done)) == 1


def test_a_deleted_result_is_computed_again(local: Local, client: Client) -> None:
    with worker(local):
        first = client.upscale(numbered_photo(12), 2)
        again = client.upscale(numbered_photo(12), 2)
        assert again.result.sr_image_uri == first.result.sr_image_uri
        local.store.delete([local.store.key(first.result.sr_image_uri)])
        fresh = client.upscale(numbered_photo(12), 2)
    assert fresh.job_id in fresh.result.sr_image_uri
    assert opened(fresh.download()).size == (660, 340)
    assert set(again.result.seconds) == {"fetch", "decode"}


def test_a_parked_job_starts_when_the_identical_job_is_cancelled(local: Local, client: Client) -> None:
    with worker(local, SMALL_TILES, UPRES_SLOTS="2"):
        first = client.submit(numbered_photo(13), 8).job_id
        until_tile(client, first, 1)
        second = client.submit(numbered_photo(13), 8).job_id
        wait_until(lambda: "requeued" in [event.type for event in so_far(local, second)])
        client.cancel(first)
        until_tile(client, second, 1)
        assert client.cancel(second).status == "cancelled"


def so_far(local: Local, job_id: str) -> list[Event | UnknownEvent]:
    with Redis.from_url(local.settings.redis_url) as redis:
        return [event for _, event in events.read(redis, job_id)]


def test_a_job_fails_with_a_retryable_error_when_the_store_cannot_write(local: Local, client: Client) -> None:
    """Simulates a full disk: a limit on file size lets the store write the upload, but not the larger result."""
    import resource

    import psutil

    with worker(local):
        process = next(child for child in psutil.Process().children(recursive=True) if "rclone" in child.name())
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (150_000, -1))
        try:
            seen = received(client, client.submit(numbered_photo(14), 4).job_id)
        finally:
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (-1, -1))
    assert isinstance(seen[-1], Failed)
    assert (seen[-1].code, seen[-1].retryable) == ("store_unavailable", True)
    assert reasons(seen) == ["worker_unwell"] * keys.RETURNS


def test_jobs_that_do_not_fit_into_memory_together_run_one_after_the_other(local: Local, client: Client) -> None:
    """Each of these jobs needs a little more than 100 MB by the estimate; 150 MB are enough for one at a time."""
    with worker(local, "--memory=150000000", SMALL_TILES, UPRES_SLOTS="3"):
        jobs = [client.submit(numbered_photo(number), 2).job_id for number in (31, 32, 33)]
        seen = {job_id: received(client, job_id) for job_id in jobs}
    assert [events[-1].type for events in seen.values()] == ["succeeded"] * 3
    spans = sorted(
        (next(e.at for e in events if isinstance(e, Progress) and e.tiles_done), events[-1].at)
        for events in seen.values()
    )
    assert all(end <= begin for (_, end), (begin, _) in pairwise(spans))
    waited = [e for events in seen.values() for e in events if isinstance(e, Progress) and e.notice]
    assert {"memory" in str(event.notice) for event in waited} == {True}


def test_a_hundred_requests_with_one_idempotency_key_create_one_job(local: Local, client: Client) -> None:
    image, barrier = numbered_photo(15), threading.Barrier(20)

    def submit(number: int) -> str:
        if number < 20:
            barrier.wait(20)
        return client.submit(image, 2, idempotency_key="hundred").job_id

    with ThreadPoolExecutor(20) as pool:
        ids = set(pool.map(submit, range(100)))
    assert len(ids) == 1
    with worker(local):
        assert starts(received(client, ids.pop())) == [1]
