"""The function with few file descriptors, and on machines with IPv4 and IPv6."""

import resource
from collections.abc import Iterator
from contextlib import ExitStack
from http.client import HTTPResponse
from pathlib import Path

import pytest
import requests
from redis import Redis

from tests.support.leasing import submit
from tests.support.servers import Patched, patched_function, post_job
from upres.core.listening import any_address
from upres.embedded.child import free_port
from upres.embedded.stack import Local

pytestmark = pytest.mark.without_worker

KEPT = 60


def limited(soft: int, hard: int) -> str:
    return f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))"


@pytest.fixture(scope="module")
def small(local: Local, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Patched]:
    """A function that may open 256 descriptors."""
    folder = tmp_path_factory.mktemp("small")
    with patched_function(local, folder, {"DESCRIPTORS_KEPT": KEPT}, before=limited(256, 256)) as running:
        yield running


def open_stream(small: Patched, job_id: str, opened: ExitStack) -> HTTPResponse:
    connection = opened.enter_context(small.connect())
    connection.sendall(f"GET /v1/jobs/{job_id}/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    response = opened.enter_context(HTTPResponse(connection))
    response.begin()
    return response


def test_streams_are_refused_before_the_descriptors_run_out(small: Patched, redis: Redis) -> None:
    job_id = submit(redis)
    with ExitStack() as opened:
        answers = [open_stream(small, job_id, opened) for _ in range(256)]
        accepted = sum(response.status == 200 for response in answers)
        assert 256 - KEPT - 60 < accepted < 256 - KEPT
        assert answers[-1].status == 503
        assert int(answers[-1].headers["Retry-After"]) > 0
        assert b'"function_unavailable"' in answers[-1].read()
        for path in ("/healthz", "/readyz", f"/v1/jobs/{job_id}"):
            answer = requests.get(small.url + path, timeout=10)
            assert (answer.status_code, answer.headers["Connection"]) == (200, "close")
    assert small.child.log.read_text().count("few of the 256 file descriptors are left") == 1


def test_the_soft_limit_of_descriptors_is_raised(local: Local, tmp_path: Path) -> None:
    hard = min(4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    with patched_function(local, tmp_path, {}, before=limited(64, hard)) as running:
        assert running.child.process.rlimit(resource.RLIMIT_NOFILE) == (hard, hard)


@pytest.mark.skipif(any_address() != "::", reason="this machine has no IPv6")
def test_function_and_its_metrics_listen_on_ipv4_and_ipv6(local: Local, tmp_path: Path) -> None:
    port = free_port()
    changed = {"UPRES_METRICS_PORT": str(port), "UPRES_ACCESS": "open"}
    with patched_function(local, tmp_path, {}, "--host", "::", **changed) as running:
        for host in ("127.0.0.1", "[::1]"):
            assert requests.get(f"http://{host}:{running.port}/healthz", timeout=10).ok
            assert requests.get(f"http://{host}:{port}/metrics", timeout=10).ok
            forwarded = post_job(f"http://{host}:{running.port}", None, **{"X-Forwarded-Proto": "https"})
            assert forwarded.json()["status_url"].startswith(f"https://{host}:")  # proxies on this machine are trusted
