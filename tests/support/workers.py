"""Workers for a single test: the real service, or one with faults (faulty_worker.py)."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from redis import Redis

from tests.support.paths import ROOT
from tests.support.waiting import wait_until
from upres.core import workers
from upres.core.queue import connect
from upres.embedded.stack import Local

FAULTY = (sys.executable, "-m", "tests.support.faulty_worker")
SHORT_LEASES = ("--lease-seconds=2", "--beat-seconds=0.3")
"""With these flags, the leases of a killed worker expire after 2 seconds instead of 12."""


def start(local: Local, *flags: str, **environment: str) -> "subprocess.Popen[bytes]":
    """Start a worker process; the flags are those of faulty_worker.py."""
    command = [*FAULTY, *flags] if flags else [sys.executable, "-m", "upres.worker"]
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, **local.environment, **environment})


@contextmanager
def worker(
    local: Local, *flags: str, watcher: Redis | None = None, **environment: str
) -> "Iterator[subprocess.Popen[bytes]]":
    """Run a worker while the block runs, then kill it; `watcher` is the Redis connection that sees it register."""
    with watcher or connect(local.settings) as connection:
        before = {one.name for one in workers.listing(connection)}
        process = start(local, *flags, **environment)
        try:
            wait_until(lambda: bool({one.name for one in workers.listing(connection)} - before), 90)
            yield process
        finally:
            process.kill()
            process.wait()
            for one in workers.listing(connection):
                if one.name not in before:
                    workers.deregister(connection, one.name)
