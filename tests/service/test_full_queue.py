"""10,000 jobs wait: what Redis sends for one request does not grow with the queue."""

from collections.abc import Callable, Iterator
from functools import partial

import pytest
import requests
from redis import Redis

from tests.support.leasing import submit, waiting
from upres.client import Client
from upres.core import keys, leases
from upres.embedded.stack import Local

pytestmark = pytest.mark.without_worker
WAITING = 10_000
LITTLE = 50_000
"""Bytes; the ids of the queue alone are 340,000."""


@pytest.fixture
def full(redis: Redis) -> Iterator[str]:
    """A queue with many ids before that of one real job; yields the id of the real one."""
    redis.rpush(keys.WAITING, *(f"{number:032x}" for number in range(WAITING)))
    yield submit(redis)
    redis.delete(keys.WAITING)


def sent(redis: Redis, ask: Callable[[], object]) -> int:
    """How many bytes Redis sends meanwhile, to everybody."""
    before = int(redis.info("stats")["total_net_output_bytes"])
    ask()
    return int(redis.info("stats")["total_net_output_bytes"]) - before


def test_position_and_cancel_read_no_queue(local: Local, redis: Redis, full: str) -> None:
    url = f"{local.url}/v1/jobs/{full}"
    answers: list[requests.Response] = []
    assert sent(redis, lambda: answers.append(requests.get(url, timeout=20))) < LITTLE
    assert answers[0].json()["position"] == WAITING
    with Client(local.url) as client:
        assert sent(redis, lambda: client.cancel(full)) < LITTLE
    assert len(waiting(redis)) == WAITING


def test_metrics_readiness_and_the_recovery_read_no_queue(local: Local, redis: Redis, full: str) -> None:
    for path in ("/metrics", "/readyz"):
        assert sent(redis, partial(requests.get, local.url + path, timeout=20)) < LITTLE
    assert sent(redis, lambda: leases.recover(redis)) < LITTLE
