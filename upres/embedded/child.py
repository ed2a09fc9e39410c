"""A child process on a leash, with a log, that is waited for until it is ready."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Self

import psutil

POLL_SECONDS = 0.02
LOG_TAIL = 30
"""Lines of a dead child's log that are shown."""


class ChildDied(Exception):
    """A process ended that should have gone on, or did not get ready in time; the message ends with its log."""


class Leashed:
    """A process that ends, after `grace` seconds for its own way out, when this one lets go or dies.

    Without a log it is a foreground command: it has this process's terminal, and hears its Ctrl-C.
    The environment is this process's, without what it may know of another upres.
    """

    def __init__(
        self, command: list[str], environment: Mapping[str, str], log: IO[bytes] | None = None, grace: float = 10
    ) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("UPRES_", "AWS_"))}
        reading, self._leash = os.pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "upres.embedded.leash", str(reading), str(grace), *command],
            env={**inherited, **environment},
            stdin=subprocess.DEVNULL if log else None,
            stdout=log,
            stderr=log,
            pass_fds=[reading],
            process_group=0 if log else None,
        )
        os.close(reading)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def poll(self) -> int | None:
        """The exit code, None while it runs."""
        return self._process.poll()

    def stop(self) -> None:
        """Let go of the leash and wait until the process is gone."""
        os.close(self._leash)
        self._process.wait()


class Child(Leashed):
    """A leashed service with its log file, waited for until it is ready."""

    def __init__(
        self, name: str, command: list[str], environment: Mapping[str, str], folder: Path, grace: float = 10
    ) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        with self.log.open("ab") as log:
            super().__init__(command, environment, log, grace)

    @property
    def process(self) -> psutil.Process:
        """The service itself, at the end of its leash."""
        return psutil.Process(self._process.pid).children()[0]

    def check(self) -> None:
        """Raise ChildDied when the process has ended."""
        code = self.poll()
        if code is not None:
            raise ChildDied(f"{self.name} ended with code {code}.{self._tail()}")

    def wait_ready(self, ready: Callable[[], bool], seconds: float = 60) -> None:
        """Return as soon as `ready` is true; ChildDied when it never is."""
        deadline = time.monotonic() + seconds
        while not ready():
            self.check()
            if time.monotonic() > deadline:
                raise ChildDied(f"{self.name} was not ready within {seconds:g} seconds.{self._tail()}")
            time.sleep(POLL_SECONDS)

    def kill(self) -> None:
        """End it without a last word."""
        for process in psutil.Process(self._process.pid).children(recursive=True):
            process.kill()
        self.stop()

    def _tail(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-LOG_TAIL:]
        return "".join(f"\n  {self.name} | {line}" for line in lines)


def free_port(wanted: int = 0) -> int:
    """The wanted port of 127.0.0.1 if nobody has it, else any free one."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise OSError("no free port")


def accepts(port: int) -> bool:
    """Whether something listens on the port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
