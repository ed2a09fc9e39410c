"""What 10,000 waiting jobs cost those who ask for the position of one, or cancel some.

    python -m benchmarks.waiting

Redis searches its list for a job's id from the front, so both take longer with each waiting job. No worker runs.
"""

import argparse
import statistics
import time
from collections.abc import Sequence

import requests
from redis import Redis

from benchmarks.queued import fill
from benchmarks.report import emit
from upres.core.queue import connect
from upres.embedded.stack import Local

WAITING = 10_000
CANCELLED = 2_000
ASKED = 50
"""Number of timed requests for a position; the median counts."""


def position(session: requests.Session, url: str, job_id: str) -> float:
    """Median seconds of a request for the state of a waiting job, with its position."""
    times = []
    for _ in range(ASKED):
        begin = time.perf_counter()
        session.get(f"{url}/v1/jobs/{job_id}", timeout=10).raise_for_status()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def cancel(session: requests.Session, url: str, ids: Sequence[str]) -> float:
    """Seconds for cancelling these jobs, one after the other."""
    begin = time.perf_counter()
    for job_id in ids:
        session.delete(f"{url}/v1/jobs/{job_id}", timeout=10).raise_for_status()
    return time.perf_counter() - begin


def measure(local: Local, redis: Redis, jobs: int) -> tuple[float, float]:
    """Seconds for the position of the last of `jobs` waiting jobs, and for cancelling the last CANCELLED of them."""
    redis.flushdb()
    ids = fill(redis, jobs)
    with requests.Session() as session:
        return position(session, local.url, ids[-1]), cancel(session, local.url, ids[-CANCELLED:])


def main() -> int:
    """Print one JSON line per figure."""
    argparse.ArgumentParser(prog="python -m benchmarks.waiting", description=__doc__.partition("\n")[0]).parse_args()
    with Local() as local, connect(local.settings) as redis:
        local.stop("worker")
        few, many = measure(local, redis, CANCELLED), measure(local, redis, WAITING)
    peer = f"with {CANCELLED} waiting"
    emit(f"position of a job, {WAITING} jobs waiting", 1000 * many[0], "ms", peer, 1000 * few[0])
    emit(f"{CANCELLED} cancels, {WAITING} jobs waiting", many[1], "s", peer, few[1])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
