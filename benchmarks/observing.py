"""The cost of observability: of metrics and logs per job, and of a scrape after 10,000 jobs.

    python -m benchmarks.observing

The share of throughput is computed, not measured: on a shared machine, runs differ by more than 1 %. It is the time of
the metrics and log lines of one job, divided by the time per small job of a worker with many waiting jobs.
"""

import argparse
import logging
import statistics
import sys
import tempfile
import time
from pathlib import Path

import requests

from benchmarks.queued import fill
from benchmarks.report import emit
from benchmarks.scaling.local import SIDES, Bench
from upres.core import events, logs
from upres.core.logs import JobLog
from upres.core.schema import Cancelled, Started, Succeeded
from upres.core.settings import Settings
from upres.embedded.child import Child, accepts, free_port
from upres.worker import metrics

SMALL = 300
"""Number of small jobs that wait for the worker."""
TIMES = 5_000
"""Number of repetitions of the metrics and log lines of a job."""
DONE = 10_000
"""Number of ended jobs before the scrape is timed."""
SCRAPES = 20
"""Number of timed scrapes; the median counts."""
STAGES = ("fetch", "decode", "upscale", "encode", "store")


def watched(job_id: str, log: logging.Logger) -> None:
    """Update all metrics and write all log lines that a worker does for a job of one tile."""
    metrics.ATTEMPTS.labels("faithful").inc()
    metrics.WAIT_SECONDS.observe(0.1)
    metrics.EVENTS.labels("started").inc()
    fields = {"event": "started", "attempt": 1, "waited_seconds": 0.1}
    JobLog(log, job_id).info("started, attempt %d", 1, extra=fields)
    for stage in STAGES:
        metrics.STAGE_SECONDS.labels(stage, "faithful").observe(0.01)
        metrics.EVENTS.labels("progress").inc()
    metrics.EVENTS.labels("progress").inc()  # the event of the tile
    done = {"event": "succeeded", "model": "faithful", "seconds": dict.fromkeys(STAGES, 0.01)}
    JobLog(log, job_id).info("succeeded: %d×%d", 256, 256, extra=done)


def cost() -> float:
    """Mean seconds of `watched`, with JSON logs written to a file."""
    with tempfile.TemporaryFile("w") as file:
        stderr, sys.stderr = sys.stderr, file
        logs.begin(Settings(logs="json"))
        log = logging.getLogger("upres.worker")
        begin = time.perf_counter()
        for number in range(TIMES):
            watched(f"{number:032x}", log)
        seconds = (time.perf_counter() - begin) / TIMES
        sys.stderr = stderr
    logging.basicConfig(force=True)
    return seconds


def small_job(bench: Bench) -> float:
    """Mean seconds between the ends of small jobs, for one worker with SMALL waiting jobs."""
    waiting = bench.submit([SIDES[0]] * SMALL)
    [worker], _ = bench.start(1, 4)
    fields = bench.finish(waiting)
    worker.stop()
    begin = min(event.at for one in fields for event in one if isinstance(event, Started))
    end = max(event.at for one in fields for event in one if isinstance(event, Succeeded))
    return (end - begin).total_seconds() / SMALL


def end_jobs(bench: Bench) -> None:
    """Create DONE jobs that have ended."""
    for job_id in fill(bench.redis, DONE):
        events.append(bench.redis, Cancelled(job_id=job_id))


def scrape(url: str) -> float:
    """Median seconds of a scrape of /metrics."""
    times = []
    for _ in range(SCRAPES):
        begin = time.perf_counter()
        requests.get(f"{url}/metrics", timeout=10).raise_for_status()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def main() -> int:
    """Print one JSON line per figure."""
    argparse.ArgumentParser(prog="python -m benchmarks.observing", description=__doc__.partition("\n")[0]).parse_args()
    with Bench() as bench, tempfile.TemporaryDirectory() as folder:
        alone, port = small_job(bench), free_port()
        emit("metrics and logs of a job", 1000 * cost(), "ms", "a small job of a busy worker", 1000 * alone)
        empty = scrape(bench.local.url)
        end_jobs(bench)
        full = scrape(bench.local.url)
        emit(f"scrape of the function, {DONE} jobs done", 1000 * full, "ms", "none done", 1000 * empty)
        environment = {**bench.local.environment, "UPRES_METRICS_PORT": str(port)}
        worker = Child("worker", [sys.executable, "-m", "upres.worker"], environment, Path(folder))
        worker.wait_ready(lambda: accepts(port) and requests.get(f"http://127.0.0.1:{port}/readyz", timeout=5).ok)
        emit("scrape of a worker", 1000 * scrape(f"http://127.0.0.1:{port}"), "ms", "of the function", 1000 * empty)
        worker.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
