"""Redis or the object store refuses requests: after a failover, for lack of replicas, with an expired token."""

import asyncio
import base64
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import psutil
import pytest
import requests
from PIL import Image
from redis import Redis

from tests.chaos import images
from tests.chaos.proxy import FaultProxy
from tests.support import gate as gates
from tests.support.images import encoded, numbered_photo
from tests.support.paths import SAMPLES
from tests.support.servers import JOB, function, http_server
from tests.support.waiting import wait_until
from tests.support.workers import worker
from upres.client import AsyncClient, AsyncUpscaled, Client
from upres.core.queue import connect
from upres.core.schema import Event, Requeued, Started
from upres.embedded.child import Child, accepts, free_port
from upres.embedded.stack import Local, redis_server

serving = contextmanager(function)


@pytest.fixture(scope="module")
def own() -> Iterator[Local]:
    """A stack for the tests of this file, which stop its parts and change the settings of its Redis."""
    with Local() as running:
        yield running


@pytest.fixture
def crop() -> bytes:
    """A PNG crop of a photo that takes a moment at factor 8."""
    with Image.open(SAMPLES / "coffee.png") as image:
        return encoded(image.convert("RGB").crop((0, 0, 200, 120)), "PNG")


@contextmanager
def without_worker(stack: Local) -> Iterator[None]:
    """Stop the stack's own worker while the block runs."""
    stack.stop("worker")
    try:
        yield
    finally:
        if "worker" not in stack.children:
            stack.start("worker")


def log(stack: Local) -> str:
    return stack.children["worker"].log.read_text()


def unavailable(response: requests.Response) -> None:
    assert (response.status_code, response.json()["code"]) == (503, "queue_unavailable")


def close_idle_connections(redis: Redis) -> None:
    """Let Redis close all other connections, as with its setting `timeout`."""
    for kind in ("normal", "pubsub"):
        redis.client_kill_filter(_type=kind, skipme=True)


@contextmanager
def refused_writes(local: Local) -> Iterator[None]:
    """Redis refuses all writes during the block: NOREPLICAS, as while a replica restarts."""
    with connect(local.settings) as redis:
        redis.config_set("min-replicas-to-write", 1)
        try:
            yield
        finally:
            redis.config_set("min-replicas-to-write", 0)


def test_a_job_goes_on_when_redis_refuses_writes_for_three_seconds(own: Local, crop: bytes) -> None:
    with Client(own.url) as client:
        seen: list[Event] = []
        for event in client.events(client.submit(crop, 8).job_id):
            seen.append(event)
            if isinstance(event, Started):
                with refused_writes(own):
                    unavailable(requests.get(f"{own.url}/readyz", timeout=20))
                    unavailable(requests.post(f"{own.url}/v1/jobs", json=JOB, timeout=20))
                    wait_until(lambda: "Redis is unavailable (NOREPLICAS" in log(own), 10)
    assert [event.type for event in seen if event.type != "progress"] == ["queued", "started", "succeeded"]
    assert requests.get(f"{own.url}/readyz", timeout=20).ok
    assert log(own).count("Redis is unavailable") == 1
    wait_until(lambda: "Redis is available again" in log(own), 10)


def test_a_former_primary_is_left_for_the_new_one_behind_the_same_address(
    own: Local, tmp_path: Path, crop: bytes
) -> None:
    """A replica is promoted behind a virtual address; the connections to the old primary stay open, as Redis does."""
    port = free_port()
    command = [redis_server(), "--port", str(port), "--dir", str(tmp_path), "--save", ""]
    child = Child("replica", [*command, "--replicaof", f"127.0.0.1 {own.redis_port}"], {}, tmp_path)
    with FaultProxy(own.redis_port) as proxy, Redis(port=port) as replica:
        child.wait_ready(lambda: accepts(port) and replica.info("replication")["master_link_status"] == "up")
        address = {"UPRES_REDIS_URL": f"redis://127.0.0.1:{proxy.port}/0"}
        parts = without_worker(own), serving(own, tmp_path, **address), worker(own, watcher=None, **address)
        with parts[0], parts[1] as url, parts[2], Client(url) as client:
            seen: list[Event] = []
            for event in client.events(client.submit(crop, 8).job_id):
                seen.append(event)
                if isinstance(event, Started):
                    replica.replicaof("NO", "ONE")
                    proxy.target = port
                    with connect(own.settings) as old:
                        old.replicaof("127.0.0.1", str(port))
            assert requests.get(f"{url}/readyz", timeout=20).ok
            assert client.upscale(crop, 2).result.width == 400
            with connect(own.settings) as old:
                old.replicaof("NO", "ONE")
    assert [event.type for event in seen if event.type != "progress"] == ["queued", "started", "succeeded"]
    child.stop()


def test_streams_and_waits_survive_connections_that_redis_closes_while_they_are_idle(own: Local, png: bytes) -> None:
    with Client(own.url) as client, connect(own.settings) as redis:
        job_id = client.upscale(png, 2).job_id
        for _ in range(2):
            close_idle_connections(redis)
            response = requests.get(f"{own.url}/v1/jobs/{job_id}/events", timeout=20)
            assert (response.status_code, "succeeded" in response.text) == (200, True)
            close_idle_connections(redis)
            image = {"image_base64": base64.b64encode(png).decode(), "upscale_factor": 2}
            waited = requests.post(f"{own.url}/v1/jobs", json=image, headers={"Prefer": "wait=10"}, timeout=20)
            assert waited.status_code == 200


def test_the_clients_upload_an_image_that_a_proxy_finds_too_large(own: Local, png: bytes) -> None:
    """As nginx does with more than 1 MB by default."""

    async def upscale(url: str) -> AsyncUpscaled:
        async with AsyncClient(url) as client:
            return await client.upscale(png, 2)

    with gates.before(own.url) as gate, Client(gate.url) as client:
        gate.largest_body = 1000
        assert client.upscale(png, 2).result.width == 128
        assert asyncio.run(upscale(gate.url)).result.width == 128


@pytest.mark.parametrize("slots", ["1", "4"])
def test_a_worker_whose_store_refuses_it_leaves_the_jobs_to_others(own: Local, slots: str) -> None:
    port = free_port()
    with without_worker(own), gates.before(own.settings.s3_endpoint_url) as gate, Client(own.url) as client:
        changed = {"UPRES_S3_ENDPOINT_URL": gate.url, "UPRES_METRICS_PORT": str(port), "UPRES_SLOTS": slots}
        with worker(own, watcher=None, **changed):

            def ready() -> requests.Response:
                return requests.get(f"http://127.0.0.1:{port}/readyz", timeout=20)

            wait_until(lambda: ready().ok)
            gate.refuses = True
            jobs = [client.submit(numbered_photo(int(slots) * 10 + number), 2).job_id for number in range(8)]
            wait_until(lambda: ready().status_code == 503)
            assert ready().json()["status"] == "unwell"
            assert "ExpiredToken" in ready().json()["detail"]
            assert requests.get(f"http://127.0.0.1:{port}/healthz", timeout=20).ok
            own.start("worker")
            for job_id in jobs:
                client.wait(job_id)
            gate.refuses = False
            own.stop("worker")
            client.upscale(numbered_photo(int(slots) * 10 + 9), 2)  # the first worker tries one job, and is well again
            wait_until(lambda: ready().ok)


def test_a_worker_without_file_descriptors_leaves_its_job_to_others(png: bytes) -> None:
    """The kernel refuses the worker a socket for the image's address: the address is not to blame."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(png)))
        handler.end_headers()
        handler.wfile.write(png)

    with (
        Local(environment=images.ENVIRONMENT) as stack,
        http_server(answer) as url,
        Client(stack.url) as client,
    ):
        client.upscale(png, 2)
        process = stack.children["worker"].process
        few = process.num_fds()
        limits = process.rlimit(psutil.RLIMIT_NOFILE)
        process.rlimit(psutil.RLIMIT_NOFILE, (few, limits[1]))
        job_id = client.submit(f"{url}/a.png", 4).job_id
        events = iter(client.events(job_id))
        requeued = next(event for event in events if isinstance(event, Requeued))
        assert requeued.reason == "worker_unwell"
        process.rlimit(psutil.RLIMIT_NOFILE, limits)
        assert client.wait(job_id).width == 256
        assert "Too many open files" in log(stack)
