"""A worker or a function whose clock is two days wrong: the same jobs succeed, with links that work."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import requests

from tests.support.paths import ROOT
from tests.support.servers import body, http_server
from tests.support.waiting import wait_until
from tests.support.workers import worker
from upres.client import Client
from upres.core import workers
from upres.core.queue import connect
from upres.core.schema import Event, Requeued, Started, Succeeded
from upres.embedded.child import Child, accepts, free_port
from upres.embedded.stack import Local

pytestmark = pytest.mark.without_worker
AHEAD, BEHIND = signal.SIGUSR1, signal.SIGUSR2
"""What these signals do to a process of tests/support/shifted_clock.py."""
SHIFTED = (sys.executable, "-m", "tests.support.shifted_clock")
SLOW_SECONDS = 1.5
"""A fetch that believes its deadline to be over gets one second."""


@contextmanager
def wrong_worker(local: Local, clock: signal.Signals) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a worker whose clock is set wrong when it is ready. With a wrong clock at its start it would end."""
    environment = {**os.environ, **local.environment}
    with connect(local.settings) as redis:
        process = subprocess.Popen([*SHIFTED, "upres.worker"], cwd=ROOT, env=environment)
        try:
            wait_until(lambda: workers.listing(redis))
            process.send_signal(clock)
            yield process
        finally:
            process.terminate()
            process.wait()


@contextmanager
def wrong_function(local: Local, folder: Path, clock: signal.Signals) -> Iterator[str]:
    """Run a function whose clock is wrong; yields its URL."""
    port = free_port()
    child = Child("function", [*SHIFTED, "upres.function", "--port", str(port)], local.environment, folder)
    with child:
        child.wait_ready(lambda: accepts(port))
        child.process.send_signal(clock)
        yield f"http://127.0.0.1:{port}"


@contextmanager
def slow_image(png: bytes) -> Iterator[str]:
    """Serve an image that takes a moment; yields its URL."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(SLOW_SECONDS)
        body(png)(handler)

    with http_server(answer) as url:
        yield f"{url}/a.png"


def succeeded(events: list[Event]) -> Succeeded:
    """Check that the events end well and that the links work; return the last event."""
    last = events[-1]
    assert isinstance(last, Succeeded), last
    assert requests.get(last.result.sr_image_url, timeout=20).ok
    return last


@pytest.mark.parametrize("clock", [AHEAD, BEHIND])
def test_a_worker_with_a_wrong_clock_leaves_jobs_to_others_and_blames_none(
    local: Local, png: bytes, clock: signal.Signals
) -> None:
    """The object store refuses what a wrong clock signs."""
    with wrong_worker(local, clock) as wrong, slow_image(png) as url, Client(local.url) as client:
        job_id = client.submit(url, 2).job_id
        seen: list[Event] = []
        for event in client.events(job_id):
            seen.append(event)
            if isinstance(event, Requeued):
                assert event.reason == "worker_unwell"
                break
        with worker(local, watcher=None):
            seen = list(client.events(job_id))
        assert wrong.poll() is None
    succeeded(seen)
    assert len([event for event in seen if isinstance(event, Started)]) > 1


@pytest.mark.parametrize("clock", [AHEAD, BEHIND])
def test_a_function_with_a_wrong_clock_accepts_jobs_that_others_can_follow(
    local: Local, tmp_path: Path, png: bytes, clock: signal.Signals
) -> None:
    with wrong_function(local, tmp_path, clock) as url, slow_image(png) as image, worker(local, watcher=None):
        accepted = requests.post(f"{url}/v1/jobs", json={"image_url": image, "upscale_factor": 2}, timeout=20).json()
        with Client(local.url) as client:
            succeeded(list(client.events(accepted["job_id"])))
        followed = requests.get(f"{url}/v1/jobs/{accepted['job_id']}/events", timeout=20)
        assert '"succeeded"' in followed.text
        refused = requests.post(f"{url}/v1/jobs", json={"image_base64": "aaaa"}, timeout=20)
        assert (refused.status_code, refused.json()["code"]) == (503, "store_unavailable")
