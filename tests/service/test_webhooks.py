"""Addresses that are told how a job ended."""

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
from upres.worker.fetch import FetchPolicy
from upres.worker.fetch import post as deliver
from upres.worker.webhooks import WebhookDispatcher


class Receiver:
    """A server that takes webhooks and answers with the statuses that are planned, then with 204."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.plan: list[int] = []
        self.heard: queue.Queue[tuple[dict[str, str], str]] = queue.Queue()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            status = receiving.plan.pop(0) if receiving.plan else 204
            self.send_response(status)
            if status == 302:
                self.send_header("Location", receiving.url + "/elsewhere")
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
    return str(requests.get(f"{local.url}/v1/webhook-secret", timeout=20).json()["secret"])


def test_an_address_is_told_with_a_signature(local: Local, post: Post, png: bytes, receiver: Receiver) -> None:
    job = post(image_base64=base64.b64encode(png).decode(), webhook_url=receiver.url).json()
    headers, body = receiver.heard.get(timeout=30)
    message = Webhook(secret(local)).verify(body, headers)
    assert message["type"] == "job.succeeded"
    assert message["data"]["job_id"] == job["job_id"]
    assert requests.get(message["data"]["result"]["sr_image_url"], timeout=20).ok
    assert headers["webhook-id"] == f"msg_{job['job_id']}"
    with pytest.raises(WebhookVerificationError):
        Webhook(secret(local)).verify(body.replace("succeeded", "failed"), headers)


def test_failed_and_cancelled_jobs_are_told_as_well(
    local: Local, client: Client, post: Post, receiver: Receiver
) -> None:
    post(image_base64=base64.b64encode(b"no image").decode(), webhook_url=receiver.url)
    failed = json.loads(receiver.heard.get(timeout=30)[1])
    assert (failed["type"], failed["data"]["code"]) == ("job.failed", "not_an_image")
    # 192.0.2.0/24 is nowhere: the job would be refused, unless it is cancelled first.
    coffee = base64.b64encode((SAMPLES / "coffee.png").read_bytes()).decode()
    client.cancel(post(image_base64=coffee, upscale_factor=8, webhook_url=receiver.url).json()["job_id"])
    assert json.loads(receiver.heard.get(timeout=30)[1])["type"] == "job.cancelled"


def test_whoever_does_not_take_it_is_asked_again(redis: Redis, post: Post, png: bytes, receiver: Receiver) -> None:
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
    """In how many seconds it is tried again."""
    seconds, microseconds = redis.time()
    return float(str(redis.zscore(keys.WEBHOOKS, job_id))) / 1000 - seconds - microseconds / 1e6


def test_attempts_grow_apart_and_end(isolated_redis: Redis) -> None:
    job_id = submit(isolated_redis, webhook_url="http://example.org/")
    events.append(isolated_redis, Cancelled(job_id=job_id))
    pauses = []
    while due := webhooks.due(isolated_redis):
        assert webhooks.due(isolated_redis) is None  # nobody else gets it meanwhile
        pauses.append(webhooks.schedule_retry(isolated_redis, due))
        isolated_redis.zadd(keys.WEBHOOKS, {due.job_id: 0}, xx=True)
    assert len(pauses) == len(webhooks.PAUSES) + 1
    assert pauses[-1] is None
    for pause, usual in zip(pauses, webhooks.PAUSES, strict=False):
        assert pause == pytest.approx(usual, rel=0.1)
    assert not isolated_redis.exists(f"upres:webhook:{job_id}")


def test_one_that_died_at_it_leaves_it_to_the_next(isolated_redis: Redis) -> None:
    job_id = submit(isolated_redis, webhook_url="http://example.org/")
    events.append(isolated_redis, Cancelled(job_id=job_id))
    first = webhooks.due(isolated_redis)
    assert first
    assert 0 < _pause(isolated_redis, job_id) <= keys.WEBHOOK_LEASE_SECONDS
    isolated_redis.zadd(keys.WEBHOOKS, {job_id: 0})
    second = webhooks.due(isolated_redis)
    assert second
    assert (second.attempt, second.message_id, second.event) == (2, first.message_id, first.event)


def test_owners_have_secrets_of_their_own(isolated_redis: Redis) -> None:
    secrets = [webhooks.secret(isolated_redis, owner) for owner in (None, "a", "b", "a")]
    assert len(set(secrets)) == 3
    assert secrets[1] == secrets[3]
    assert all(one.startswith("whsec_") for one in secrets)


def test_who_is_slow_holds_up_no_others(local: Local, post: Post, png: bytes, receiver: Receiver) -> None:
    """Ten jobs tell an address that never answers, and then one another."""
    with socket.create_server((IMAGE_HOST, 0)) as silent:
        slow = f"http://{IMAGE_HOST}:{silent.getsockname()[1]}/"
        for _ in range(10):
            post(image_base64=base64.b64encode(b"no image").decode(), webhook_url=slow)
        begin = time.monotonic()
        post(image_base64=base64.b64encode(b"no image").decode(), webhook_url=receiver.url)
        receiver.heard.get(timeout=30)
        assert time.monotonic() - begin < 8  # each attempt at the slow one takes ten seconds
    with Redis.from_url(local.settings.redis_url) as redis:
        redis.delete(keys.WEBHOOKS)


def test_late_attempts_have_fresh_links(local: Local, client: Client, redis: Redis, png: bytes) -> None:
    result = client.upscale(png, 2).result
    stale = result.model_copy(update={"sr_image_url": "http://gone/", "original_image_url": "http://gone/"})
    event = Succeeded(job_id="0" * 32, result=stale)
    due = webhooks.Due("0" * 32, 5, "http://example.org/", "", event.model_dump_json())
    received = json.loads(WebhookDispatcher(local.settings, local.store)._body(due))["data"]["result"]
    assert requests.get(received["sr_image_url"], timeout=20).ok
    assert requests.get(received["original_image_url"], timeout=20).ok


def test_hosts_that_are_not_named_are_refused_at_once(local: Local, tmp_path: Path, png: bytes) -> None:
    for url in function(local, tmp_path, UPRES_FETCH_HOSTS=".example.org"):
        body = {"image_base64": base64.b64encode(png).decode(), "webhook_url": "https://example.com/hook"}
        answer = requests.post(f"{url}/v1/jobs", json=body, timeout=20)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_webhook_url")


@pytest.mark.parametrize("url", ["http://127.0.0.1:6379/", "http://169.254.169.254/", "http://[::1]/", "ftp://a/"])
def test_no_message_goes_where_no_image_may_come_from(url: str) -> None:
    with pytest.raises(UrlRefused):
        deliver(url, b"{}", {}, FetchPolicy())


@pytest.mark.parametrize("url", ["", "example.org", "ftp://example.org/", "http://", 5, "http://a/" + "x" * 2048])
def test_what_is_no_address_is_refused(post: Post, png: bytes, url: Any) -> None:
    answer = post(image_base64=base64.b64encode(png).decode(), webhook_url=url)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_webhook_url")
