"""A cancelled job counts as one of its API key's jobs until its worker has let go of it, which takes about a second."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler

import pytest
from redis import Redis

from tests.conftest import Post
from tests.support.events import RESULT
from tests.support.leasing import run_out, submit, taken
from tests.support.servers import IMAGE_HOST, http_server
from tests.support.waiting import wait_until
from upres.client import Client
from upres.core import api_keys, events, keys, leases
from upres.core.api_keys import ApiKey
from upres.core.errors import TimedOut, TooManyJobs, UrlUnreachable
from upres.core.schema import Cancelled, Succeeded
from upres.embedded.stack import Local
from upres.worker.ended_jobs import EndedJobs, Interrupt
from upres.worker.fetch import fetch
from upres.worker.guard import FetchPolicy
from upres.worker.report import publish_failure


@pytest.fixture
def key(isolated_redis: Redis) -> ApiKey:
    """An API key that may have one job at once."""
    return api_keys.create(isolated_redis, "somebody", jobs_at_once=1)[0]


def is_full(redis: Redis, key: ApiKey) -> bool:
    try:
        api_keys.admit(redis, key, "f" * 32)
    except TooManyJobs:
        return True
    redis.zrem(keys.api_key_jobs(key.key_id), "f" * 32)
    return False


def test_a_cancelled_job_has_its_place_until_the_worker_lets_go(isolated_redis: Redis, key: ApiKey) -> None:
    job_id = submit(isolated_redis, owner=key.key_id)
    lease = taken(isolated_redis)
    events.append(isolated_redis, Cancelled(job_id=job_id))
    assert is_full(isolated_redis, key)
    isolated_redis.zadd(keys.api_key_jobs(key.key_id), {job_id: 1 + time.time() * 1000 + 1000})
    assert leases.renew(isolated_redis, [lease]) == {job_id}
    assert float(str(isolated_redis.zscore(keys.api_key_jobs(key.key_id), job_id))) > time.time() * 1000 + 5000
    leases.let_go(isolated_redis, lease._replace(holder="another"))
    assert is_full(isolated_redis, key)
    leases.let_go(isolated_redis, lease)
    assert not is_full(isolated_redis, key)
    assert isolated_redis.keys("*:held") == []


def test_the_place_of_a_cancelled_job_is_free_when_its_worker_died(isolated_redis: Redis, key: ApiKey) -> None:
    job_id = submit(isolated_redis, owner=key.key_id)
    taken(isolated_redis)
    events.append(isolated_redis, Cancelled(job_id=job_id))
    left = float(str(isolated_redis.zscore(keys.api_key_jobs(key.key_id), job_id))) / 1000 - time.time()
    assert 0 < left < keys.LEASE_SECONDS + 1, "nobody renews it"
    assert 0 < isolated_redis.ttl(f"upres:job:{job_id}:held") <= keys.LEASE_SECONDS


def test_a_job_that_no_worker_works_on_has_no_place_after_its_end(isolated_redis: Redis, key: ApiKey) -> None:
    waits = submit(isolated_redis, owner=key.key_id)
    events.append(isolated_redis, Cancelled(job_id=waits))
    assert not is_full(isolated_redis, key)
    orphan = submit(isolated_redis, owner=key.key_id)
    taken(isolated_redis)
    run_out(isolated_redis, orphan)
    events.append(isolated_redis, Cancelled(job_id=orphan))
    assert not is_full(isolated_redis, key)


def test_a_job_that_its_worker_ends_has_no_place_after_its_end(isolated_redis: Redis, key: ApiKey) -> None:
    job_id = submit(isolated_redis, owner=key.key_id)
    events.append(isolated_redis, Succeeded(job_id=job_id, result=RESULT), taken(isolated_redis).holder)
    assert not is_full(isolated_redis, key)


def test_a_job_whose_time_is_up_has_its_place_while_its_slot_hangs(isolated_redis: Redis, key: ApiKey) -> None:
    submit(isolated_redis, owner=key.key_id)
    lease = taken(isolated_redis)
    publish_failure(isolated_redis, lease, TimedOut("too long"), busy=True)
    assert is_full(isolated_redis, key)
    leases.let_go(isolated_redis, lease)
    assert not is_full(isolated_redis, key)


class Endless:
    """An image server that never ends its answer, and notes how long each client stayed."""

    def __init__(self) -> None:
        self.came, self.left = threading.Event(), threading.Event()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.came.set()
        handler.send_response(200)
        handler.end_headers()
        handler.connection.recv(1)  # returns when the client closes
        self.left.set()


@pytest.fixture
def endless() -> Iterator[tuple[str, Endless]]:
    server = Endless()
    with http_server(server.answer) as url:
        yield url, server


def test_a_cancel_closes_the_connection_of_a_running_fetch_at_once(
    local: Local, client: Client, post: Post, redis: Redis, endless: tuple[str, Endless]
) -> None:
    url, server = endless
    job_id = post(image_url=url + "/a.png").json()["job_id"]
    assert server.came.wait(20)
    client.cancel(job_id)
    assert server.left.wait(3), "a fetch takes ten seconds if nobody interrupts it"
    wait_until(lambda: redis.zscore(keys.LEASES, job_id) is None)


def interrupted(act: Callable[[Interrupt], object]) -> float:
    """Run a fetch in a thread, interrupt it when it waits, and return how many seconds later it ended."""
    interrupt, ended = Interrupt(), threading.Event()

    def run() -> None:
        with pytest.raises(UrlUnreachable):
            act(interrupt)
        ended.set()

    threading.Thread(target=run).start()
    wait_until(lambda: interrupt._act is not None)
    begin = time.monotonic()
    interrupt.set()
    assert ended.wait(5)
    return time.monotonic() - begin


def test_an_interrupt_ends_a_dns_lookup_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    hanging = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: hanging.wait(20))
    assert interrupted(lambda one: fetch("http://example.org/", 1, FetchPolicy(), 20, one.attach)) < 2
    hanging.set()


def test_a_fetch_that_is_interrupted_before_it_begins_does_not_begin() -> None:
    interrupt = Interrupt()
    interrupt.set()
    with pytest.raises(UrlUnreachable):
        fetch(f"http://{IMAGE_HOST}:9/", 1, FetchPolicy(), 20, interrupt.attach)


def test_only_jobs_that_are_not_held_any_more_are_interrupted(isolated_redis: Redis, local: Local) -> None:
    watcher = EndedJobs(local.settings)
    watcher._connection = isolated_redis
    for _ in range(2):
        submit(isolated_redis)
    one, other = taken(isolated_redis), taken(isolated_redis)
    with watcher.watch(one) as first, watcher.watch(other) as second:
        events.append(isolated_redis, Cancelled(job_id=one.job_id))
        watcher.check()
        assert (first.is_set, second.is_set) == (True, False)
    assert watcher._watched == []
