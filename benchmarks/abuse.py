"""What one API key's abuse costs another key: the time of a tiny job, during all attacks at once and while idle.

    python -m benchmarks.abuse [--seconds 30] [--flood] [--only posts reads streams]

One key sends large, hostile and unfinished bodies, invalid requests, submissions and cancels of jobs with slow
addresses, uploads, and requests that read, as many as its default limits allow; it opens all event streams that it
gets, and its webhooks go to receivers that do not answer (benchmarks/attacks.py). With --flood it does not pause when
it is refused. Its jobs compute nothing: the turns of jobs that compute are the queue's. Another key has 16×16 images
enlarged, one after the other, from POST to the terminal event on its stream. The peer is the same while the attackers
have been started but do nothing.

The upres (Redis, store, function, worker) and the client of the other key have the first half of the cores. The
attackers have the second half; with a single core they run at nice 19.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from benchmarks.attacks import BURST, HOST, INTERVAL, NAMES
from benchmarks.gateway import percentile
from benchmarks.report import emit
from benchmarks.service import tiny
from upres.client import Client
from upres.core import api_keys
from upres.core.queue import connect
from upres.embedded.stack import Local

PAUSE = 0.2
"""Seconds between two tiny jobs, so that the measured client is no load."""
BURST_SECONDS = 10
"""Seconds of the attack until its burst, of which a key may send one a minute, is over."""
ENVIRONMENT = {"UPRES_ACCESS": "keys", "UPRES_FETCH_PRIVATE_NETWORKS": f"{HOST}/32"}


class Cores(NamedTuple):
    """The cores of the upres, and those of the attackers; the same if there is only one."""

    upres: set[int]
    attackers: set[int]

    @classmethod
    def halves(cls) -> "Cores":
        """Divide the cores that this process may use."""
        cores = sorted(os.sched_getaffinity(0))
        middle = (len(cores) + 1) // 2
        return cls(set(cores[:middle]), set(cores[middle:] or cores))


class Times(NamedTuple):
    """Milliseconds of tiny jobs."""

    idle: list[float]
    burst: list[float]
    attacked: list[float]


@contextmanager
def attackers(url: str, key: str, options: Sequence[str], cores: Cores) -> Iterator["subprocess.Popen[str]"]:
    """Start the attackers; they begin when a line is written to them."""

    def away() -> None:
        os.sched_setaffinity(0, cores.attackers)
        if cores.attackers == cores.upres:
            os.nice(19)

    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.attacks", url, *options],
        env={**os.environ, "UPRES_API_KEY": key},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=away,
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        yield process


def milliseconds(client: Client, seconds: float) -> list[float]:
    """Send tiny jobs for some seconds, and at least two. Return the time of each in milliseconds."""
    times, end = list[float](), time.perf_counter() + seconds
    while (begin := time.perf_counter()) < end or len(times) < 2:
        client.upscale(tiny(), 2)
        times.append((time.perf_counter() - begin) * 1000)
        time.sleep(PAUSE)
    return times


@contextmanager
def cpu_noted(local: Local, during: str) -> Iterator[None]:
    """Print how many seconds of CPU each part of upres used during the block, for a second of it."""
    parts = {name: child.process for name, child in local.children.items()}
    before, begin = {name: sum(part.cpu_times()[:2]) for name, part in parts.items()}, time.perf_counter()
    yield
    seconds = time.perf_counter() - begin
    used = {name: round((sum(part.cpu_times()[:2]) - before[name]) / seconds, 3) for name, part in parts.items()}
    print(f"{during}: CPU {used}, load {os.getloadavg()[0]:.1f}", file=sys.stderr)


def measure(local: Local, keys: Sequence[str], seconds: float, options: Sequence[str], cores: Cores) -> Times:
    """Measure one key's tiny jobs while the other key's attackers do nothing, begin, and go on."""
    with attackers(local.url, keys[0], options, cores) as process, Client(local.url, keys[1]) as client:
        milliseconds(client, 2)
        with cpu_noted(local, "idle"):
            idle = milliseconds(client, seconds)
        assert process.stdin
        process.stdin.write("begin\n")
        process.stdin.flush()
        begin = time.perf_counter()
        with cpu_noted(local, "in the burst"):
            burst = milliseconds(client, BURST_SECONDS)
        with cpu_noted(local, "attacked"):
            attacked = milliseconds(client, seconds)
        allowed = BURST + (time.perf_counter() - begin) / INTERVAL
        answers = json.loads(process.communicate()[0])
    print(f"attacks and their statuses, of {allowed:.0f} POST requests that are allowed: {answers}", file=sys.stderr)
    return Times(idle, burst, attacked)


def main() -> int:
    """Print one JSON line per figure; what else there is to know goes to standard error."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.abuse", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=30, help="seconds of each measurement; default: 30")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, help="attacks; default: all")
    parser.add_argument("--flood", action="store_true", help="attackers do not pause when they are refused")
    given = parser.parse_args()
    options = ["--only", *given.only, *(["--flood"] if given.flood else [])]
    cores = Cores.halves()
    os.sched_setaffinity(0, cores.upres)
    print(f"upres and the client on cores {cores.upres}, attackers on {cores.attackers}", file=sys.stderr)
    with Local(environment=ENVIRONMENT) as local, connect(local.settings) as redis:
        hostile, other = api_keys.create(redis, "hostile"), api_keys.create(redis, "other", requests_per_minute=6000)
        keys = [hostile[1], other[1]]  # the limits of the other key must not delay what is measured
        idle, burst, attacked = measure(local, keys, given.seconds, options, cores)
        local.check()
    for name, times in (("attacked", attacked), ("in_burst", burst)):
        emit(f"abuse.tiny_job.{name}.p50", statistics.median(times), "ms", "idle", statistics.median(idle))
        emit(f"abuse.tiny_job.{name}.p90", percentile(times, 90), "ms", "idle", percentile(idle, 90))
    return 0


if __name__ == "__main__":
    sys.exit(main())
