"""A group of worker processes that can be killed and replaced."""

import os
import random
import signal
import subprocess
import sys
import time
from typing import IO

from redis import Redis

from tests.chaos.invariants import Kill
from tests.support.waiting import wait_until
from upres.core import workers
from upres.core.schema import now
from upres.embedded.stack import Local

READY_SECONDS = 90


class Fleet:
    """Runs `size` workers; each worker that is killed or terminated is replaced. A context manager."""

    def __init__(self, local: Local, size: int, log: IO[bytes], **environment: str) -> None:
        self._local, self._log = local, log
        self._environment = {**os.environ, **local.environment, **environment}
        self._workers = [self._start() for _ in range(size)]
        self._leaving: list[subprocess.Popen[bytes]] = []
        self.kills: list[Kill] = []
        self.terms = 0

    def __enter__(self) -> "Fleet":
        return self

    def __exit__(self, *exception: object) -> None:
        for worker in (*self._workers, *self._leaving):
            worker.kill()
            worker.wait()

    def wait_ready(self, redis: Redis) -> None:
        """Wait until all workers take jobs; before that no fault meets them, and one that gets no Redis ends."""

        def ready() -> bool:
            names = {worker.name for worker in workers.listing(redis)}
            return all(any(f"-{worker.pid}-" in name for name in names) for worker in self._workers)

        wait_until(ready, READY_SECONDS)

    def kill(self, rng: random.Random) -> None:
        """Kill a random worker with SIGKILL."""
        victim = self._replace(rng)
        self.kills.append(Kill(victim.pid, now()))
        victim.kill()
        victim.wait()

    def terminate(self, rng: random.Random) -> None:
        """Send SIGTERM to a random worker; do not wait until it ends."""
        victim = self._replace(rng)
        victim.send_signal(signal.SIGTERM)
        self._leaving.append(victim)
        self.terms += 1

    def unexpected(self) -> list[int]:
        """Exit codes of workers that ended without a signal, and unexpected exit codes of workers that got SIGTERM."""
        ended = [worker.poll() for worker in self._workers]
        left = [worker.poll() for worker in self._leaving]
        # A worker that gets SIGTERM before it has installed its signal handler ends with -15.
        return [code for code in ended if code is not None] + [code for code in left if code not in (None, 0, -15)]

    def drain(self, seconds: float) -> None:
        """Wait for the workers that got SIGTERM; kill those that are still running after the timeout."""
        deadline = time.monotonic() + seconds
        for worker in self._leaving:
            try:
                worker.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.kill()

    def _replace(self, rng: random.Random) -> "subprocess.Popen[bytes]":
        place = rng.randrange(len(self._workers))
        victim, self._workers[place] = self._workers[place], self._start()
        return victim

    def _start(self) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "upres.worker"]
        return subprocess.Popen(command, env=self._environment, stdout=self._log, stderr=self._log)
