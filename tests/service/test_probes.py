"""The Prometheus metrics of a worker and its health and readiness probes."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from redis import Redis

from tests.support import mixable
from tests.support.scraping import scrape
from tests.support.servers import body, http_server
from tests.support.waiting import wait_until
from tests.support.workers import start, worker
from upres.client import Client
from upres.client.errors import JobFailed
from upres.core import events, registry_changes
from upres.core.errors import FetchError, tree
from upres.core.listening import any_address
from upres.core.schema import Progress, Started
from upres.core.storage import Store
from upres.embedded.child import accepts, free_port
from upres.embedded.stack import Local
from upres.worker.heartbeat import Heartbeat
from upres.worker.in_flight import InFlightJobs
from upres.worker.outage_log import OutageLog
from upres.worker.probes import Health

pytestmark = pytest.mark.without_worker


@pytest.fixture(scope="module")
def measured(local: Local) -> Iterator[str]:
    """The URL of a worker's metrics and probes; the worker has three slots."""
    port = free_port()
    with worker(local, UPRES_METRICS_PORT=str(port), UPRES_SLOTS="3"):
        yield f"http://127.0.0.1:{port}"


def test_metrics_count_the_attempts_tiles_and_events_of_jobs(
    measured: str, client: Client, redis: Redis, png: bytes
) -> None:
    before = scrape(measured)
    with http_server(body(b"", 404)) as url, pytest.raises(JobFailed):
        client.upscale(f"{url}/cat.png")
    result = client.upscale(png, 2)
    # The worker counts an event after Redis has stored it, so the client may receive the event before it is counted.
    sent = before.get("upres_events_published_total", type="succeeded")
    wait_until(lambda: scrape(measured).get("upres_events_published_total", type="succeeded") > sent)
    after = scrape(measured)
    received = [event for _, event in events.read(redis, result.job_id)]

    def more(name: str, **labels: str) -> float:
        """The increase of a metric between the two scrapes."""
        return after.get(name, **labels) - before.get(name, **labels)

    assert more("upres_attempts_total", model="faithful") == 2
    assert more("upres_fetch_errors_total", code="url_answered_error") == 1
    assert more("upres_stage_seconds_count", stage="upscale", model="faithful") == 1
    assert more("upres_stage_seconds_sum", stage="upscale", model="faithful") == result.result.seconds["upscale"]
    assert more("upres_wait_seconds_count") == 2
    [waited] = [event.waited_seconds for event in received if isinstance(event, Started)]
    assert more("upres_wait_seconds_sum") >= waited
    [*_, last] = [event for event in received if isinstance(event, Progress)]
    assert more("upres_tiles_total") == last.tiles_total
    assert more("upres_batch_tiles_sum") == last.tiles_total
    mine = sum(isinstance(event, Progress) for event in received)
    assert more("upres_events_published_total", type="progress") >= mine
    assert more("upres_events_published_total", type="succeeded") == 1
    assert more("upres_events_published_total", type="failed") == 1
    assert more("upres_device_busy_seconds_total") > 0
    assert after.get("upres_slots") == 3
    assert after.get("upres_slots_busy") == 0


def test_each_kind_of_event_and_error_is_counted_from_0_before_the_first(measured: str) -> None:
    """Prometheus sees no increase in a counter that did not exist before, and so no first burst."""
    received = scrape(measured)
    wanted = {
        "upres_events_published_total": [{"type": name} for name in ("started", "progress", "succeeded", "failed")],
        "upres_fetch_errors_total": [{"code": kind.code} for kind in tree(FetchError)],
        "upres_store_errors_total": [{"kind": kind} for kind in ("refused", "no_answer")],
    }
    for name, labels in wanted.items():
        assert [one for one in labels if one not in received.labels(name)] == []


def test_metrics_describe_the_model_the_device_and_the_process(measured: str, client: Client, png: bytes) -> None:
    received = scrape(measured)
    result = client.upscale(png, 2).result
    assert received.labels("upres_model_info") == [
        {"model": "faithful", "version": result.model_version, "digest": result.model_digest[:12]}
    ]
    assert received.labels("upres_device_info") == [{"kind": "cpu", "name": result.device}]
    assert received.get("upres_device_memory_bytes", state="used") > 1e8
    assert 0.1 < received.get("upres_cold_start_seconds") < 60
    assert received.get("process_resident_memory_bytes") > 1e7


def test_a_version_with_several_strengths_is_one_model(
    measured: str, client: Client, store: Store, png: bytes, tmp_path: Path
) -> None:
    names = ("measured-base", "measured-mix")
    mixable.pair(tmp_path, names)
    registry_changes.push(store, tmp_path / names[1] / "1")
    for strength in (0.1, 0.2):
        client.upscale(png, 2, model=names[1], strength=strength)
    lines = requests.get(f"{measured}/metrics", timeout=10).text.splitlines()
    assert sum(line.startswith("upres_model_info") and names[1] in line for line in lines) == 1


def test_ready_worker_answers_200_to_both_probes(measured: str) -> None:
    for path in ("healthz", "readyz"):
        answer = requests.get(f"{measured}/{path}", timeout=10)
        assert (answer.status_code, answer.json()["status"]) == (200, "ready")
    assert requests.get(f"{measured}/elsewhere", timeout=10).status_code == 404


@pytest.mark.skipif(any_address() != "::", reason="this machine has no IPv6")
def test_probes_answer_on_ipv6_too(measured: str) -> None:
    assert requests.get(f"{measured.replace('127.0.0.1', '[::1]')}/readyz", timeout=10).status_code == 200


def test_loading_worker_is_healthy_but_not_ready(local: Local) -> None:
    port = free_port()
    with starting(local, port, "--loads-for-ever") as url:
        healthy, ready = requests.get(f"{url}/healthz", timeout=10), requests.get(f"{url}/readyz", timeout=10)
        assert (healthy.status_code, healthy.json()["status"]) == (200, "loading")
        assert (ready.status_code, ready.json()["status"]) == (503, "loading")


def test_worker_that_loads_too_long_is_reported_as_stuck(local: Local) -> None:
    port = free_port()
    with starting(local, port, "--loads-for-ever", "--loading-seconds=0.01") as url:
        wait_until(lambda: requests.get(f"{url}/healthz", timeout=10).status_code == 503)
        received = requests.get(f"{url}/healthz", timeout=10).json()
        assert received["status"] == "stuck"
        assert "loading" in received["detail"]


def test_health_is_stuck_while_a_device_call_does_not_return(local: Local) -> None:
    health = Health()
    heartbeat = Heartbeat(
        local.settings, InFlightJobs(), lambda: pytest.fail("not started"), lambda: 1e6, OutageLog("Redis")
    )
    health.hangs = heartbeat.hangs
    health.enter("ready")
    assert health.report()["status"] == "stuck"
    assert "device" in health.report()["detail"]


@pytest.mark.parametrize("seconds", [0.1, 0.4, 0.8, 1.0, 1.2])
def test_worker_exits_within_20_seconds_on_sigterm_while_it_starts(local: Local, seconds: float) -> None:
    process = subprocess.Popen([sys.executable, "-m", "upres.worker"], env={**os.environ, **local.environment})
    time.sleep(seconds)  # the signal arrives at a different stage of the start for each parameter
    handled = catches(process.pid, signal.SIGTERM)  # else Python itself is still starting
    process.terminate()
    code = process.wait(20)
    assert code == 0 or (code == -signal.SIGTERM and not handled)


def catches(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal (proc_pid_status(5))."""
    mask = re.search(r"^SigCgt:\s*([0-9a-f]+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert mask
    return bool(int(mask[1], 16) >> (number - 1) & 1)


@contextmanager
def starting(local: Local, port: int, *flags: str) -> Iterator[str]:
    """Start a worker with these fault flags, yield its URL before it is ready, and check that it exits with code 0."""
    process = start(local, *flags, UPRES_METRICS_PORT=str(port))
    try:
        wait_until(lambda: accepts(port))
        yield f"http://127.0.0.1:{port}"
        process.terminate()
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
