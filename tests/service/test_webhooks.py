"""Webhooks: signed requests that tell a client's server how a job ended, their retries, and refused addresses."""

import base64
import json
import queue
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
from redis import Redis
from standardwebhooks import Webhook, WebhookVerificationError

from tests.conftest import Post
from tests.support.leasing import submit
from tests.support.paths import SAMPLES
from tests.support.servers import IMAGE_HOST, function
from tests.support.waiting import wait_until
from upres.client import Client
from upres.core import events, keys, webhooks
from upres.core.errors import UrlRefused
from upres.core.schema import Cancelled, Succeeded
from upres.embedded.stack import Local
from upres.worker.fetch import post as deliver
from upres.worker.guard import FetchPolicy
from upres.worker.outage_log import OutageLog
from upres.worker.webhooks import WebhookDispatcher


class Receiver:
    """The state of a test server for webhooks: its URL, the next response statuses (then 204), received webhooks."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.plan: list[int] = []
        self.heard: queue.Queue[tuple[dict[str, str], str]] = queue.Queue()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A running HTTP server that receives webhooks."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            status = receiving.plan.pop(0) if receiving.plan else 204
            self.send_response(status)
            if status == 302:
                self.send_header("Location", receiving.url + "/elsewhere")
            if status == 503:
                self.send_header("Retry-After", "1800")
            self.send_header("Content-Length", "0")
            self.end_headers()
            receiving.heard.put((dict(self.headers), body))

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer((IMAGE_HOST, 0), Handler) as server:
        receiving = Receiver(f"http://{IMAGE_HOST}:{server.server_address[1]}/hook")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield receiving
        server.shutdown()
        thread.join()


def secret(local: Local) -> str:
    """The secret that signs the webhooks of jobs without an API key."""
    return str(requests.get(f"{local.url}/v1/webhook-secret", timeout=20).json()["secret"])


def test_webhook_of_succeeded_job_has_a_valid_signature(
    local: Local, post: Post, png: bytes, receiver: Receiver
) -> None:
    job = post(image_base64=base64.b64encode(png).decode(), webhook_url=receiver.url).json()
    headers, body = receiver.heard.get(timeout=30)
    message = Webhook(secret(local)).verify(body, headers)
    assert message["type"] == "job.succeeded"
    assert message["data"]["job_id"] == job["job_id"]
    assert requests.get(message["data"]["result"]["sr_image_url"], timeout=20).ok
    assert headers["webhook-id"] == f"msg_{job['job_id']}"
    with pytest.raises(WebhookVerificationError):
        Webhook(secret(local)).verify(body.replace("succeeded", "failed"), headers)


def test_failed_and_cancelled_jobs_send_webhooks(local: Local, client: Client, post: Post, receiver: Receiver) -> None:
    post(image_base64=base64.b64encode(b"no image").decode(), webhook_url=receiver.url)
    failed = json.loads(receiver.heard.get(timeout=30)[1])
    assert (failed["type"], failed["data"]["code"]) == ("job.failed", "not_an_image")
    # Enlarging this image by 8 takes longer than the cancel request, so the job is cancelled before it can succeed.
    coffee = base64.b64encode((SAMPLES / "coffee.png").read_bytes()).decode()
    client.cancel(post(image_base64=coffee, upscale_factor=8, webhook_url=receiver.url).json()["job_id"])
    assert json.loads(receiver.heard.get(timeout=30)[1])["type"] == "job.cancelled"


def test_webhook_is_retried_with_the_same_id_after_error_or_redirect(
    redis: Redis, post: Post, png: bytes, receiver: Receiver
) -> None:
    receiver.plan = [500, 302]
    job_id = post(image_base64=base64.b64encode(png).decode(), webhook_url=receiver.url).json()["job_id"]
    ids = set()
    for attempt in (1, 2, 3):
        headers, _ = receiver.heard.get(timeout=30)
        ids.add(headers["webhook-id"])
        if attempt < 3:
            wait_until(lambda: float(str(redis.zscore(keys.WEBHOOKS, job_id))) > 0)
            wait_until(lambda: _pause(redis, job_id) < keys.WEBHOOK_LEASE_SECONDS - 10 or _pause(redis, job_id) > 31)
            redis.zadd(keys.WEBHOOKS, {job_id: 0})
    wait_until(lambda: redis.zscore(keys.WEBHOOKS, job_id) is None)
    assert len(ids) == 1


def _pause(redis: Redis, job_id: str) -> float:
    """The seconds until the job's webhook is due again."""
    seconds, microseconds = redis.time()
    return float(str(redis.zscore(keys.WEBHOOKS, job_id))) / 1000 - seconds - microseconds / 1e6


def test_webhook_retries_follow_the_planned_pauses_and_then_stop(isolated_redis: Redis) -> None:
    job_id = submit(isolated_redis, webhook_url="http://example.org/")
    events.append(isolated_redis, Cancelled(job_id=job_id))
    pauses = []
    while due := webhooks.due(isolated_redis):
        assert webhooks.due(isolated_redis) is None  # no other worker gets it during the lease
        pauses.append(webhooks.schedule_retry(isolated_redis, due))
        isolated_redis.zadd(keys.WEBHOOKS, {due.job_id: 0}, xx=True)
    assert len(pauses) == len(webhooks.PAUSES) + 1
    assert pauses[-1] is None
    for pause, usual in zip(pauses, webhooks.PAUSES, strict=False):
        assert pause == pytest.approx(usual, rel=0.1)
    assert not isolated_redis.exists(f"upres:webhook:{job_id}")


@pytest.mark.parametrize(("asked", "pause"), [(0, 5), (1, 5), (1800, 1800), (1e9, webhooks.MAX_ASKED)])
def test_a_receiver_can_ask_for_a_longer_pause_within_bounds(isolated_redis: Redis, asked: float, pause: float) -> None:
    events.append(isolated_redis, Cancelled(job_id=submit(isolated_redis, webhook_url="http://example.org/")))
    due = webhooks.due(isolated_redis)
    assert due
    assert webhooks.schedule_retry(isolated_redis, due, asked) == pytest.approx(pause, rel=0.1)
    assert _pause(isolated_redis, due.job_id) == pytest.approx(pause, rel=0.2)


def test_retry_after_of_a_busy_receiver_is_heeded(redis: Redis, post: Post, receiver: Receiver) -> None:
    receiver.plan = [503]
    job_id = post(image_base64=base64.b64encode(b"no image").decode(), webhook_url=receiver.url).json()["job_id"]
    receiver.heard.get(timeout=30)
    wait_until(lambda: _pause(redis, job_id) > 1700)
    redis.zrem(keys.WEBHOOKS, job_id)


def test_webhook_is_due_again_after_its_lease_expires(isolated_redis: Redis) -> None:
    job_id = submit(isolated_redis, webhook_url="http://example.org/")
    events.append(isolated_redis, Cancelled(job_id=job_id))
    first = webhooks.due(isolated_redis)
    assert first
    assert 0 < _pause(isolated_redis, job_id) <= keys.WEBHOOK_LEASE_SECONDS
    isolated_redis.zadd(keys.WEBHOOKS, {job_id: 0})
    second = webhooks.due(isolated_redis)
    assert second
    assert (second.attempt, second.message_id, second.event) == (2, first.message_id, first.event)


def test_each_owner_has_a_separate_webhook_secret(isolated_redis: Redis) -> None:
    secrets = [webhooks.secret(isolated_redis, owner) for owner in (None, "a", "b", "a")]
    assert len(set(secrets)) == 3
    assert secrets[1] == secrets[3]
    assert all(one.startswith("whsec_") for one in secrets)


def test_slow_receiver_does_not_delay_webhooks_to_other_receivers(
    local: Local, post: Post, png: bytes, receiver: Receiver
) -> None:
    """Ten jobs send webhooks to a server that never responds; the next job sends one to a normal server."""
    with socket.create_server((IMAGE_HOST, 0)) as silent:
        slow = f"http://{IMAGE_HOST}:{silent.getsockname()[1]}/"
        for _ in range(10):
            post(image_base64=base64.b64encode(b"no image").decode(), webhook_url=slow)
        begin = time.monotonic()
        post(image_base64=base64.b64encode(b"no image").decode(), webhook_url=receiver.url)
        receiver.heard.get(timeout=30)
        assert time.monotonic() - begin < 8  # each attempt to the slow receiver takes ten seconds
    with Redis.from_url(local.settings.redis_url) as redis:
        redis.delete(keys.WEBHOOKS)


def test_late_webhook_attempt_contains_new_presigned_urls(
    local: Local, client: Client, redis: Redis, png: bytes
) -> None:
    result = client.upscale(png, 2, original="eager").result
    stale = result.model_copy(update={"sr_image_url": "http://gone/", "original_image_url": "http://gone/"})
    event = Succeeded(job_id="0" * 32, result=stale)
    due = webhooks.Due("0" * 32, 5, "http://example.org/", "", event.model_dump_json())
    received = json.loads(WebhookDispatcher(local.settings, local.store, OutageLog("Redis"))._body(due))["data"][
        "result"
    ]
    assert requests.get(received["sr_image_url"], timeout=20).ok
    assert requests.get(received["original_image_url"], timeout=20).ok


def test_job_is_refused_if_webhook_host_is_not_in_fetch_hosts(local: Local, tmp_path: Path, png: bytes) -> None:
    for url in function(local, tmp_path, UPRES_FETCH_HOSTS=".example.org"):
        body = {"image_base64": base64.b64encode(png).decode(), "webhook_url": "https://example.com/hook"}
        answer = requests.post(f"{url}/v1/jobs", json=body, timeout=20)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_webhook_url")


@pytest.mark.parametrize("url", ["http://127.0.0.1:6379/", "http://169.254.169.254/", "http://[::1]/", "ftp://a/"])
def test_webhooks_are_not_sent_to_forbidden_addresses(url: str) -> None:
    with pytest.raises(UrlRefused):
        deliver(url, b"{}", {}, FetchPolicy())


@pytest.mark.parametrize("url", ["", "example.org", "ftp://example.org/", "http://", 5, "http://a/" + "x" * 2048])
def test_invalid_webhook_url_is_refused(post: Post, png: bytes, url: Any) -> None:
    answer = post(image_base64=base64.b64encode(png).decode(), webhook_url=url)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_webhook_url")
