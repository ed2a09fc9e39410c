"""Child processes that end when this process ends (see leash.py), with a log file and a check that they are ready."""

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
"""Seconds between two checks of a child."""
LOG_TAIL = 30
"""Number of lines at the end of a child's log that ChildDied shows."""


class ChildDied(Exception):
    """A child ended unexpectedly, or was not ready in time. The message contains the end of its log."""


class LinkedProcess:
    """A child process that ends when `stop` is called, or when this process ends in any way.

    It gets SIGTERM, and SIGKILL after `grace` seconds. Without a log it runs in the foreground: it uses this process's
    terminal and receives its Ctrl-C. It inherits this process's environment without the variables UPRES_* and AWS_*,
    which may belong to another upres; `environment` is added.
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
        """Return the exit code; None while the process runs."""
        return self._process.poll()

    def stop(self) -> None:
        """Close the pipe, so that the process is stopped, and wait until it has ended."""
        os.close(self._leash)
        self._process.wait()


class Child(LinkedProcess):
    """A service as a leashed child process. It writes its log to `{name}.log` in `folder`."""

    def __init__(
        self, name: str, command: list[str], environment: Mapping[str, str], folder: Path, grace: float = 10
    ) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        with self.log.open("ab") as log:
            super().__init__(command, environment, log, grace)

    @property
    def process(self) -> psutil.Process:
        """The process of the service itself, which is a child of leash.py's process."""
        return psutil.Process(self._process.pid).children()[0]

    def check(self) -> None:
        """Raise ChildDied when the process has ended."""
        code = self.poll()
        if code is not None:
            raise ChildDied(f"{self.name} ended with code {code}.{self._tail()}")

    def wait_ready(self, ready: Callable[[], bool], seconds: float = 60) -> None:
        """Wait until `ready` returns true. Raises ChildDied when the process ends, or after `seconds`."""
        deadline = time.monotonic() + seconds
        while not ready():
            self.check()
            if time.monotonic() > deadline:
                raise ChildDied(f"{self.name} was not ready within {seconds:g} seconds.{self._tail()}")
            time.sleep(POLL_SECONDS)

    def kill(self) -> None:
        """Kill the service with SIGKILL, and its child processes."""
        for process in psutil.Process(self._process.pid).children(recursive=True):
            process.kill()
        self.stop()

    def _tail(self) -> str:
        """Return the last LOG_TAIL lines of the log, each with the name of the service."""
        lines = self.log.read_text(errors="replace").splitlines()[-LOG_TAIL:]
        return "".join(f"\n  {self.name} | {line}" for line in lines)


def free_port(wanted: int = 0) -> int:
    """Return the wanted TCP port of 127.0.0.1 if it is free, else any free port. Raises OSError when there is none."""
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
    """Return whether a server accepts connections on this TCP port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
