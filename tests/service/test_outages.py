"""Outages of Redis, of the object store and at worker start: API responses, jobs and worker exits."""

import base64
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import pytest
import requests
from PIL import Image

from tests.chaos.proxy import FaultProxy
from tests.support.images import encoded
from tests.support.paths import SAMPLES
from tests.support.servers import body, function, http_server
from upres.client import Client
from upres.core.errors import StoreUnavailable
from upres.core.schema import Event, Progress
from upres.core.storage import Store
from upres.embedded.child import free_port
from upres.embedded.stack import Local


@pytest.fixture
def without_redis(local: Local, tmp_path: Path) -> Iterator[str]:
    """The URL of an API server whose Redis port refuses connections."""
    yield from function(local, tmp_path, UPRES_REDIS_URL=f"redis://127.0.0.1:{free_port()}/0")


@pytest.fixture
def without_store(local: Local, tmp_path: Path) -> Iterator[str]:
    """The URL of an API server whose object store port refuses connections."""
    yield from function(local, tmp_path, UPRES_S3_ENDPOINT_URL=f"http://127.0.0.1:{free_port()}")


@pytest.fixture
def wrong_bucket(local: Local, tmp_path: Path) -> Iterator[str]:
    """The URL of an API server that is configured with a bucket that does not exist."""
    yield from function(local, tmp_path, UPRES_S3_BUCKET="nowhere")


@pytest.fixture
def cut_off_from_redis(local: Local, tmp_path: Path) -> Iterator[str]:
    """The URL of an API server whose connection to Redis stays open but carries no data."""
    with FaultProxy(local.redis_port) as proxy:
        urls = function(local, tmp_path, UPRES_REDIS_URL=f"redis://127.0.0.1:{proxy.port}/0")
        url = next(urls)
        assert requests.get(f"{url}/v1/jobs/{'0' * 32}", timeout=20).status_code == 404  # it is connected now
        with proxy.partition():
            yield url
        next(urls, None)


def unavailable(response: requests.Response, code: str) -> None:
    """Assert that the response is a retryable 503 with this error code, sent within 10 seconds."""
    assert response.status_code == 503
    assert response.json()["code"] == code
    assert response.json()["retryable"] is True
    assert int(response.headers["Retry-After"]) > 0
    assert response.elapsed.total_seconds() < 10


def test_requests_get_503_while_redis_refuses_connections(without_redis: str) -> None:
    job = f"{without_redis}/v1/jobs/{'0' * 32}"
    unavailable(
        requests.post(f"{without_redis}/v1/jobs", json={"image_url": "https://example.org/a.png"}, timeout=20),
        "queue_unavailable",
    )
    for path in ("", "/events", "/result"):
        unavailable(requests.get(job + path, timeout=20), "queue_unavailable")
    unavailable(requests.delete(job, timeout=20), "queue_unavailable")
    unavailable(requests.get(f"{without_redis}/readyz", timeout=20), "queue_unavailable")
    assert requests.get(f"{without_redis}/healthz", timeout=20).ok


def test_requests_get_503_while_redis_does_not_answer(cut_off_from_redis: str) -> None:
    job = f"{cut_off_from_redis}/v1/jobs/{'0' * 32}"
    image = {"image_url": "https://example.org/a.png"}
    asked: list[Callable[[], requests.Response]] = [
        lambda: requests.post(f"{cut_off_from_redis}/v1/jobs", json=image, timeout=20),
        lambda: requests.get(job, timeout=20),
        lambda: requests.get(f"{job}/events", timeout=20),
        lambda: requests.get(f"{cut_off_from_redis}/readyz", timeout=20),
    ]
    with ThreadPoolExecutor(len(asked)) as pool:
        for response in pool.map(lambda ask: ask(), asked):
            unavailable(response, "queue_unavailable")


def test_inline_images_get_503_and_image_urls_work_without_the_store(without_store: str, png: bytes) -> None:
    image = base64.b64encode(png).decode()
    unavailable(
        requests.post(f"{without_store}/v1/jobs", json={"image_base64": image}, timeout=20), "store_unavailable"
    )
    unavailable(requests.get(f"{without_store}/readyz", timeout=20), "store_unavailable")
    assert requests.post(f"{without_store}/v1/jobs", json={"image_url": "https://example.org/a.png"}, timeout=20).ok


@pytest.fixture
def seven_tiles() -> bytes:
    """A PNG crop of a photo that is divided into seven tiles at factor 8."""
    with Image.open(SAMPLES / "coffee.png") as image:
        return encoded(image.convert("RGB").crop((0, 0, 330, 170)), "PNG")


@pytest.fixture
def own() -> Iterator[Local]:
    """A separate upres stack for one test, which may stop the stack's parts."""
    with Local() as running:
        yield running


def test_a_job_succeeds_although_redis_restarts_while_it_runs(own: Local, seven_tiles: bytes) -> None:
    with Client(own.url) as client:
        job_id = client.submit(seven_tiles, 8).job_id
        seen: list[Event] = []
        for event in client.events(job_id):
            seen.append(event)
            if isinstance(event, Progress) and event.stage == "upscale" and event.tiles_done == 1:
                own.stop("redis")
                own.start("redis")
    assert seen[-1].type == "succeeded"
    assert [event.type for event in seen].count("queued") == 1


def test_readyz_answers_503_if_the_bucket_does_not_exist(wrong_bucket: str) -> None:
    unavailable(requests.get(f"{wrong_bucket}/readyz", timeout=20), "store_unavailable")


def start_worker(local: Local, **changed: str) -> "subprocess.CompletedProcess[str]":
    """Run a worker with the changed environment variables until it exits, for at most 60 seconds."""
    environment = {**os.environ, **local.environment, **changed}
    return subprocess.run(
        [sys.executable, "-m", "upres.worker"], env=environment, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"UPRES_MODEL": "nonesuch"}, "There is no model"),
        (
            {"UPRES_DEVICE": "cuda"},
            "cuda is not available here (torch 2.13.0+cpu is a build without CUDA); usable: auto, cpu",
        ),
        ({"UPRES_DEVICE": "toaster"}, "UPRES_DEVICE"),
        ({"UPRES_S3_ENDPOINT_URL": "http://127.0.0.1:9"}, "object store does not answer"),
        ({"UPRES_REDIS_URL": "http://127.0.0.1:9"}, "redis://"),
    ],
)
def test_a_worker_with_a_wrong_setting_exits_with_a_clear_error(
    local: Local, changed: dict[str, str], says: str
) -> None:
    done = start_worker(local, **changed)
    assert done.returncode == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_worker_without_redis_exits_within_30_seconds_and_no_traceback(local: Local) -> None:
    begin = time.monotonic()
    done = start_worker(local, UPRES_REDIS_URL=f"redis://127.0.0.1:{free_port()}/0")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr, done.stderr
    assert "Redis does not answer at UPRES_REDIS_URL" in done.stderr
    assert time.monotonic() - begin < 30


def test_an_error_response_with_a_wrong_checksum_is_store_unavailable(local: Local) -> None:
    wrong = body(b"out of order", 500, {"x-amz-checksum-crc32": "AAAAAA=="})
    with http_server(wrong, "127.0.0.1") as url:
        settings = local.settings.model_copy(update={"s3_endpoint_url": url})
        store = Store(settings, boto3.session.Session("id", "secret", region_name="us-east-1"), attempts=1)
        with pytest.raises(StoreUnavailable):
            store.get("a")
