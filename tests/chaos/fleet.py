"""Worker processes that come and go."""

import os
import random
import signal
import subprocess
import sys
import time
from typing import IO

from tests.chaos.invariants import Kill
from upres.core.schema import now
from upres.embedded.stack import Local


class Fleet:
    """So many workers; each that goes is replaced. A context manager."""

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

    def kill(self, rng: random.Random) -> None:
        """SIGKILL one of them."""
        victim = self._replace(rng)
        self.kills.append(Kill(victim.pid, now()))
        victim.kill()
        victim.wait()

    def terminate(self, rng: random.Random) -> None:
        """SIGTERM one of them; it leaves in its own time."""
        victim = self._replace(rng)
        victim.send_signal(signal.SIGTERM)
        self._leaving.append(victim)
        self.terms += 1

    def unexpected(self) -> list[int]:
        """Exit codes of workers that ended though nobody told them to, or not as they should."""
        ended = [worker.poll() for worker in self._workers]
        left = [worker.poll() for worker in self._leaving]
        # One that was told to stop before it listened to signals dies of it.
        return [code for code in ended if code is not None] + [code for code in left if code not in (None, 0, -15)]

    def drain(self, seconds: float) -> None:
        """Wait for those that were told to leave; kill what stays."""
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
