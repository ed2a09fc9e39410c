"""An object store that takes connections and answers nothing delays what needs the store, and nothing else."""

import base64
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import requests
from redis import Redis

from tests.support.leasing import submit
from tests.support.servers import Patched, patched_function
from tests.support.waiting import wait_until
from upres.core import api_keys, registry, served_models
from upres.core.served_models import ServedModel
from upres.embedded.stack import Local
from upres.function.threads import AT_ONCE

pytestmark = pytest.mark.without_worker

MANY = 60
"""More than the threads that all requests have together."""


class CountingStore:
    """A server that counts its connections; it never answers, or to all requests that all is well."""

    def __init__(self, answer: bytes = b"") -> None:
        self.requests = 0
        self._answer = answer
        self._held: list[socket.socket] = []
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=MANY * 2)
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        try:
            while True:
                connection, _ = self._listening.accept()
                self._held.append(connection)
                self.requests += 1
                if self._answer:
                    connection.recv(1 << 16)
                    connection.sendall(self._answer)
        except OSError:
            return

    def close(self) -> None:
        self._listening.close()
        for connection in self._held:
            connection.close()


@contextmanager
def function_with(local: Local, folder: Path, store: CountingStore, **changed: str) -> Iterator[Patched]:
    try:
        with patched_function(local, folder, {}, UPRES_S3_ENDPOINT_URL=store.url, **changed) as running:
            yield running
    finally:
        store.close()


@pytest.fixture
def slow(local: Local, redis: Redis, tmp_path: Path) -> Iterator[tuple[Patched, CountingStore]]:
    """A function whose store is silent, while a worker serves the default model."""
    store = CountingStore()
    serve_default_model(local, redis)
    with function_with(local, tmp_path, store) as running:
        yield running, store


def serve_default_model(local: Local, redis: Redis) -> None:
    """Say that a worker serves the default model, so that no submission asks the store for it."""
    name = local.settings.model
    known = served_models.read(local.store, name, registry.labels(local.store, name).labels["stable"])
    served_models.publish(redis, name, ServedModel(labels={"stable": known}))


@contextmanager
def asking(running: Patched, count: int, method: str, path: str, body: object = None, text: str = "") -> Iterator[None]:
    """Send a request on each of `count` connections, with an API key or without, and wait for no answer."""
    data = b"" if body is None else json.dumps(body).encode()
    key = f"Authorization: Bearer {text}\r\n" if text else ""
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{key}Content-Length: {len(data)}\r\n\r\n"
    with ExitStack() as opened:
        for _ in range(count):
            opened.enter_context(running.connect()).sendall(head.encode() + data)
        yield


def assert_prompt(running: Patched, redis: Redis) -> None:
    """The state of a job is there at once, and a job with an address is accepted."""
    job_id = submit(redis)
    begin = time.monotonic()
    assert requests.get(f"{running.url}/v1/jobs/{job_id}", timeout=10).json()["status"] == "queued"
    assert requests.get(f"{running.url}/v1/jobs/{job_id}/preview", timeout=10).ok
    assert requests.post(f"{running.url}/v1/jobs", json={"image_url": "http://example.org/"}, timeout=10).ok
    assert time.monotonic() - begin < 2, "it waited for the store"


@pytest.mark.parametrize("path", ["/readyz", "/v1/models"])
def test_all_that_ask_for_the_store_wait_for_one_look(
    slow: tuple[Patched, CountingStore], redis: Redis, path: str
) -> None:
    running, store = slow
    with asking(running, MANY, "GET", path):
        wait_until(lambda: store.requests)
        assert_prompt(running, redis)
        assert store.requests == 1


def test_images_that_wait_for_the_store_do_not_delay_other_requests(
    slow: tuple[Patched, CountingStore], redis: Redis
) -> None:
    running, store = slow
    assert requests.post(f"{running.url}/v1/jobs", json={"image_url": "http://example.org/"}, timeout=10).ok
    body = {"image_base64": base64.b64encode(b"image").decode()}
    with asking(running, MANY, "POST", "/v1/jobs", body):
        wait_until(lambda: store.requests >= 10)
        assert_prompt(running, redis)


def test_images_of_one_key_that_wait_for_the_store_do_not_delay_those_of_another(
    local: Local, redis: Redis, tmp_path: Path
) -> None:
    store = CountingStore()
    serve_default_model(local, redis)
    one, other = (api_keys.create(redis, name)[1] for name in ("one", "other"))
    body = {"image_base64": base64.b64encode(b"image").decode()}
    with (
        function_with(local, tmp_path, store, UPRES_ACCESS="keys") as running,
        asking(running, MANY, "POST", "/v1/jobs", body, one),
    ):
        wait_until(lambda: store.requests >= AT_ONCE)
        with asking(running, 1, "POST", "/v1/jobs", body, other):
            wait_until(lambda: store.requests > AT_ONCE)
        assert store.requests == AT_ONCE + 1, "before the first request to the store is given up, and another begins"


def test_the_answer_about_readiness_is_kept_for_a_second(local: Local, tmp_path: Path) -> None:
    store = CountingStore(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    with function_with(local, tmp_path, store) as running, requests.Session() as session:
        begin = time.monotonic()
        for _ in range(20):
            assert session.get(f"{running.url}/readyz", timeout=10).json()["status"] == "ok"
        assert 1 <= store.requests <= 1 + (time.monotonic() - begin)
