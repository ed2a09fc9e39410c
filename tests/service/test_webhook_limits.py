"""Slow receivers of webhooks delay only their own: fair between owners, limited by the address connected to."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from ipaddress import ip_network

import pytest
from redis import Redis

from tests.support.leasing import submit
from tests.support.servers import body, http_server
from tests.support.waiting import wait_until
from upres.core import events, keys
from upres.core.schema import Cancelled
from upres.embedded.stack import Local
from upres.worker import webhook_limits
from upres.worker.fetch import TOTAL_SECONDS
from upres.worker.guard import FetchPolicy
from upres.worker.outage_log import OutageLog
from upres.worker.webhook_limits import PER_ADDRESS, PER_OWNER, SHORT_SECONDS, Busy, Limits
from upres.worker.webhooks import WebhookDispatcher


class Silent:
    """A receiver that accepts connections and never answers."""

    def __init__(self, host: str) -> None:
        self.server = socket.create_server((host, 0), backlog=100)
        self.url = f"http://{host}:{self.server.getsockname()[1]}"
        self.port = self.server.getsockname()[1]
        self.connections: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                self.connections.append(self.server.accept()[0])

    def close(self) -> None:
        self.server.close()
        for one in self.connections:
            one.close()


@pytest.fixture
def silent() -> Iterator[list[Silent]]:
    servers = [Silent("127.0.0.11"), Silent("127.0.0.12")]
    yield servers
    for one in servers:
        one.close()


@pytest.fixture
def dispatcher(local: Local, isolated_redis: Redis) -> Iterator[WebhookDispatcher]:
    """A dispatcher that may connect to all addresses of this machine; the tests start it."""
    made = WebhookDispatcher(local.settings, local.store, OutageLog("Redis"))
    made._connection, made._policy = isolated_redis, FetchPolicy((ip_network("127.0.0.0/8"),))
    yield made
    made.close()
    if made.is_alive():
        made.join(5)


def due(redis: Redis, url: str, owner: str | None, count: int = 1) -> None:
    """Make webhooks that are due now."""
    for _ in range(count):
        events.append(redis, Cancelled(job_id=submit(redis, webhook_url=url, owner=owner)))


def seconds_until_delivery(redis: Redis, owner: str | None) -> float:
    """Send a webhook to a receiver that answers, and return how long it took to come."""
    came = threading.Event()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        body(b"", 204)(handler)
        came.set()

    with http_server(answer, "127.0.0.13") as url:
        begin = time.monotonic()
        due(redis, url, owner)
        assert came.wait(20)
        return time.monotonic() - begin


def test_two_owners_with_receivers_that_hang_do_not_delay_a_third(
    isolated_redis: Redis, dispatcher: WebhookDispatcher, silent: list[Silent]
) -> None:
    for number, one in enumerate(silent):
        due(isolated_redis, one.url, f"slow{number}", 40)
    dispatcher.start()
    wait_until(lambda: [len(one.connections) for one in silent] == [PER_OWNER, PER_OWNER])
    assert seconds_until_delivery(isolated_redis, "third") < 2.5  # it is looked for once a second


def test_without_owners_the_text_of_an_address_evades_no_limit(
    isolated_redis: Redis, dispatcher: WebhookDispatcher, silent: list[Silent]
) -> None:
    port = silent[0].port
    for number in range(2 * PER_ADDRESS):
        host = ("127.0.0.11", "127.0.0.11.", "[::ffff:127.0.0.11]", "0x7f.0.0.11")[number % 4]
        due(isolated_redis, f"HTTP://u{number}@{host}:{port}/{number}", None)
    dispatcher.start()
    assert seconds_until_delivery(isolated_redis, None) < 2.5
    assert 0 < len(silent[0].connections) <= PER_ADDRESS


def test_webhooks_above_a_limit_are_sent_as_soon_as_their_turn_comes(
    isolated_redis: Redis, dispatcher: WebhookDispatcher
) -> None:
    count = 40
    came = threading.Semaphore(0)

    def answer(handler: BaseHTTPRequestHandler) -> None:
        body(b"", 204)(handler)
        came.release()

    with http_server(answer, "127.0.0.13") as url:
        due(isolated_redis, url, "busy", count)
        dispatcher.start()
        for _ in range(count):
            assert came.acquire(timeout=10)
    wait_until(lambda: isolated_redis.zcard(keys.WEBHOOKS) == 0)


def test_a_receiver_that_was_slow_gets_less_time_in_the_first_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    limits = Limits()

    def time_for(address: str, attempt: int = 1, took: float = 0, answered: bool = True) -> float:
        with limits.send("", attempt) as sending:
            seconds = sending.admit(address)
            now[0] += took
            sending.answered = answered
            return seconds

    assert time_for("192.0.2.1", took=TOTAL_SECONDS, answered=False) == TOTAL_SECONDS
    assert time_for("192.0.2.2") == TOTAL_SECONDS
    assert time_for("192.0.2.1", attempt=3, took=5, answered=False) == TOTAL_SECONDS, "late attempts are patient"
    assert time_for("192.0.2.1", took=SHORT_SECONDS, answered=False) == SHORT_SECONDS
    assert time_for("192.0.2.1", took=1) == SHORT_SECONDS
    assert time_for("192.0.2.1", took=9) == TOTAL_SECONDS, "it answered in time"
    assert time_for("192.0.2.1") == TOTAL_SECONDS, "who needs long, but answers, is not slow"


def test_webhooks_above_a_limit_get_one_turn_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_limits, "PER_ADDRESS", 1)
    limits = Limits()
    with limits.send("", 1) as first:
        first.admit("2001:db8::1")
        turns = []
        for number in range(2, 1000):
            with pytest.raises(Busy) as busy, limits.send("", 1) as other:
                other.admit(f"2001:db8::{number:x}")
            turns.append(busy.value.seconds)
    assert turns[0] >= 0.4
    assert turns == sorted(turns)
    assert 30 < turns[-1] <= webhook_limits.MAX_TURN_SECONDS
    with limits.send("", 1) as free:
        assert free.admit("2001:db8::1") == TOTAL_SECONDS


def test_only_so_many_receivers_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_limits, "MAX_REMEMBERED", 10)
    limits = Limits()
    with limits.send("kept", 1):
        for number in range(100):
            with limits.send(f"o{number}", 1) as sending:
                sending.admit(f"192.0.2.{number}")
    assert len(limits._subjects) <= 11
