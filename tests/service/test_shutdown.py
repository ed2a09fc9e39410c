"""The function at SIGTERM: open requests end properly, and nothing is lost."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from redis import Redis

from tests.chaos.proxy import FaultProxy
from tests.support.leasing import submit
from tests.support.servers import JOB, Patched, patched_function
from tests.support.streams import frames
from tests.support.waiting import wait_until
from upres.client import sse
from upres.embedded.stack import Local

pytestmark = pytest.mark.without_worker


@pytest.fixture
def stopping(local: Local, tmp_path: Path) -> Iterator[Patched]:
    with patched_function(local, tmp_path, {}) as running:
        yield running


def follow(running: Patched, redis: Redis) -> Iterator[sse.ServerSentEvent]:
    """Follow a new job; return the frames after the first one."""
    live = frames(requests.get(f"{running.url}/v1/jobs/{submit(redis)}/events", stream=True, timeout=20))
    next(live)
    return live


def wait_for_a_job(running: Patched) -> requests.Response:
    return requests.post(f"{running.url}/v1/jobs", json=JOB, headers={"Prefer": "wait=20"}, timeout=20)


def quiet(running: Patched) -> bool:
    """Whether the process has ended and logged neither errors nor tracebacks."""
    wait_until(lambda: running.child.poll() is not None, 10)
    log = running.child.log.read_text()
    return not any(word in log for word in ("Traceback", "ERROR", "Exception"))


def test_streams_and_waits_end_at_once_and_the_log_is_quiet(stopping: Patched, redis: Redis) -> None:
    streams = [follow(stopping, redis) for _ in range(3)]
    waiting = redis.llen("rq:queue:upres")
    with ThreadPoolExecutor(3) as pool:
        answers = [pool.submit(wait_for_a_job, stopping) for _ in range(3)]
        wait_until(lambda: redis.llen("rq:queue:upres") == waiting + 3)
        stopping.child.process.terminate()
        for answer in answers:
            assert answer.result().status_code == 202
            assert answer.result().json()["status"] == "queued"
            assert answer.result().elapsed.total_seconds() < 10
    for live in streams:
        assert list(live) == []  # it raises when the body does not end properly
    assert quiet(stopping)


def test_requests_that_do_not_end_are_interrupted_quietly(local: Local, redis: Redis, tmp_path: Path) -> None:
    """A stream waits for a Redis that does not answer; two requests wait for their bodies, one after its answer."""
    with FaultProxy(local.redis_port) as proxy:
        address = local.settings.redis_url.replace(str(local.redis_port), str(proxy.port))
        with patched_function(local, tmp_path, {"STOP_SECONDS": 0.2}, UPRES_REDIS_URL=address) as running:
            live = follow(running, redis)
            with proxy.partition(), running.connect() as slow, running.connect() as answered:
                slow.sendall(b"POST /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n")
                answered.sendall(b"POST /nowhere HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n")
                assert answered.recv(1 << 16).startswith(b"HTTP/1.1 404 ")
                running.child.process.terminate()
                assert list(live) == []
                received = b"".join(iter(lambda: slow.recv(1 << 16), b""))
            wait_until(lambda: running.child.poll() is not None, 10)
            assert received.startswith(b"HTTP/1.1 503 ")
            assert b'"function_unavailable"' in received
            assert "Traceback" not in running.child.log.read_text()


def test_idle_connections_are_closed(stopping: Patched) -> None:
    with stopping.connect() as idle, requests.Session() as session:
        assert session.get(f"{stopping.url}/healthz", timeout=10).ok
        stopping.child.process.terminate()
        assert idle.recv(1) == b""
    assert quiet(stopping)
