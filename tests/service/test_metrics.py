"""Tests of the metrics that the function exports for Prometheus, and of its health endpoint under load."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
import requests
from redis import Redis

from tests.chaos.proxy import FaultProxy
from tests.conftest import Post
from tests.support.leasing import submit
from tests.support.scraping import scrape
from tests.support.servers import body, function, http_server
from tests.support.waiting import wait_until
from tests.support.workers import worker
from upres.client import Client
from upres.core import api_keys, events, keys
from upres.core.errors import RequestError, UpresError, tree
from upres.core.schema import Cancelled, now
from upres.embedded.child import free_port
from upres.embedded.stack import Local

pytestmark = pytest.mark.without_worker


def test_a_metrics_port_in_use_is_reported_without_a_traceback(local: Local) -> None:
    with http_server(body(b""), "127.0.0.1") as url:
        port = url.rpartition(":")[2]
        for arguments in (["upres.function", "--port", str(free_port())], ["upres.worker"]):
            environment = {**os.environ, **local.environment, "UPRES_METRICS_PORT": port}
            command = [sys.executable, "-m", *arguments]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
            assert done.returncode == 1
            assert f"UPRES_METRICS_PORT: {port} cannot be listened on" in done.stderr
            assert "Traceback" not in done.stderr


def test_ended_jobs_are_counted_by_outcome_with_and_without_a_worker(
    local: Local, redis: Redis, client: Client, png: bytes
) -> None:
    before = scrape(local.url)
    events.append(redis, Cancelled(job_id=submit(redis)))
    late = submit(redis, deadline=now() - timedelta(seconds=1))
    wait_until(lambda: client.status(late).status == "failed")
    with worker(local):
        client.upscale(png, 2)
    after = scrape(local.url)
    for outcome, code in (("succeeded", ""), ("cancelled", ""), ("failed", "deadline_exceeded")):
        labels = {"model": "faithful", "outcome": outcome, "code": code}
        assert after.get("upres_jobs_total", **labels) - before.get("upres_jobs_total", **labels) == 1


def test_each_way_to_fail_is_counted_from_0_before_the_first_failure(local: Local, tmp_path: Path) -> None:
    """Prometheus sees no increase in a counter that did not exist before, and so no first burst of failures."""
    changed = {"UPRES_METRICS_PORT": str(free_port()), "UPRES_MODEL": "never-used", "UPRES_LOGS": "json"}
    for _ in function(local, tmp_path, **changed):
        received = scrape(f"http://127.0.0.1:{changed['UPRES_METRICS_PORT']}")
        own = [kind for kind in tree() if kind.__module__ == UpresError.__module__]  # the clients' errors fail no job
        codes = {kind.code for kind in own if not issubclass(kind, RequestError)}
        assert {"internal_error", "worker_lost", "store_unavailable", "url_unreachable"} <= codes
        for outcome, code in [("succeeded", ""), ("cancelled", ""), *(("failed", code) for code in codes)]:
            ways = {"model": "never-used", "outcome": outcome, "code": code}
            assert ways in received.labels("upres_jobs_total")
        for kind in ("refused", "no_answer"):
            assert {"kind": kind} in received.labels("upres_store_errors_total")
        for status in ("500", "503", "504"):
            assert {"status": status} in received.labels("upres_http_errors_total")


def test_server_errors_are_counted(local: Local, tmp_path: Path) -> None:
    port = free_port()
    changed = {"UPRES_METRICS_PORT": str(port), "UPRES_REDIS_URL": f"redis://127.0.0.1:{free_port()}/0"}
    for url in function(local, tmp_path, **changed):
        assert requests.get(f"{url}/readyz", timeout=20).status_code == 503
        assert requests.get(f"{url}/v1/nothing", timeout=20).status_code == 404
        received = scrape(f"http://127.0.0.1:{port}")
        assert [received.get("upres_http_errors_total", status=status) for status in ("503", "500")] == [1, 0]


def test_queue_metrics_show_the_waiting_jobs_and_the_age_of_the_oldest(local: Local, redis: Redis) -> None:
    old = submit(redis, submitted_at=now())
    received = scrape(local.url)
    assert received.get("upres_redis_up") == 1
    assert received.get("upres_queue_jobs") == 1
    assert received.get("upres_workers") == 0
    wait_until(lambda: scrape(local.url).get("upres_queue_oldest_seconds") > received.get("upres_queue_oldest_seconds"))
    events.append(redis, Cancelled(job_id=old))
    assert scrape(local.url).get("upres_queue_oldest_seconds") == 0


def test_requests_are_counted_by_route_and_open_event_streams_are_shown(local: Local, redis: Redis) -> None:
    labels = {"method": "GET", "route": "/v1/jobs/{job_id}", "status": "404"}
    before = scrape(local.url)
    requests.get(f"{local.url}/v1/jobs/{'0' * 32}", timeout=10)
    requests.get(f"{local.url}/no/such/page", timeout=10)
    job_id = submit(redis)
    with requests.get(f"{local.url}/v1/jobs/{job_id}/events", stream=True, timeout=10) as stream:
        lines = stream.iter_lines()
        next(lines)
        during = scrape(local.url)
        assert during.get("upres_sse_subscribers") == before.get("upres_sse_subscribers") + 1
    for found in (labels, {"method": "GET", "route": "none", "status": "404"}):
        name = "upres_http_request_seconds_count"
        assert during.get(name, **found) == before.get(name, **found) + 1
    events.append(redis, Cancelled(job_id=job_id))
    wait_until(lambda: scrape(local.url).get("upres_sse_subscribers") == before.get("upres_sse_subscribers"))


def test_requests_with_a_prefer_header_are_counted_separately(local: Local, post: Post) -> None:
    name, labels = "upres_http_request_seconds_count", {"method": "POST", "status": "202"}
    before = scrape(local.url)
    post(image_url="https://example.invalid/a.png")
    post({"Prefer": "wait=0.1"}, image_url="https://example.invalid/a.png")
    after = scrape(local.url)
    for route in ("/v1/jobs", "/v1/jobs (wait)"):
        assert after.get(name, route=route, **labels) == before.get(name, route=route, **labels) + 1
    assert after.get("upres_redis_memory_bytes") > 0


def test_healthz_responds_while_sixty_requests_wait_for_redis(local: Local, tmp_path: Path) -> None:
    with FaultProxy(local.redis_port) as proxy:
        for url in function(local, tmp_path, UPRES_REDIS_URL=f"redis://127.0.0.1:{proxy.port}/0"):
            job = f"{url}/v1/jobs/{'0' * 32}"
            assert requests.get(job, timeout=20).status_code == 404
            with proxy.partition(), ThreadPoolExecutor(60) as pool:
                asked = threading.Barrier(61, timeout=20)
                waiting = [pool.submit(_ask, asked, job) for _ in range(60)]
                asked.wait()
                assert requests.get(f"{url}/healthz", timeout=1).ok
                assert not all(one.done() for one in waiting)


def _ask(asked: threading.Barrier, url: str) -> None:
    asked.wait()
    requests.get(url, timeout=60)


@pytest.mark.parametrize("access", ["keys", "open"])
def test_metrics_are_on_the_port_for_operators_only(local: Local, redis: Redis, tmp_path: Path, access: str) -> None:
    """With an API key, or where all may submit jobs, nobody learns from /metrics what others do."""
    port, (key, text) = free_port(), api_keys.create(redis, "somebody")
    for url in function(local, tmp_path, UPRES_ACCESS=access, UPRES_METRICS_PORT=str(port)):
        for headers in ({}, {"Authorization": f"Bearer {text}"}):
            answer = requests.get(f"{url}/metrics", headers=headers, timeout=10)
            assert (answer.status_code, answer.json()["code"]) == (404, "metrics_private")
            assert "UPRES_METRICS_PORT" in answer.json()["detail"]
        assert scrape(f"http://127.0.0.1:{port}").get("upres_redis_up") == 1
    redis.hdel(keys.API_KEYS, key.key_id)


def test_metrics_are_served_when_redis_and_the_store_are_unreachable(local: Local, tmp_path: Path) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    changed = {"UPRES_REDIS_URL": f"redis://{nowhere}/0", "UPRES_S3_ENDPOINT_URL": f"http://{nowhere}"}
    for url in function(local, tmp_path, **changed):
        requests.get(f"{url}/v1/models", timeout=30)
        received = scrape(url)
        assert received.get("upres_redis_up") == 0
        assert received.get("upres_store_errors_total", kind="no_answer") > 0
        assert received.get("process_resident_memory_bytes") > 0
        assert not received.labels("upres_queue_jobs")
