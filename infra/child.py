"""A child process on a leash, with a log, that is waited for until it is ready."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

POLL_SECONDS = 0.02
LOG_TAIL = 30
"""Lines of a dead child's log that are shown."""


class ChildDied(Exception):
    """A process ended that should have gone on, or did not get ready in time; the message ends with its log."""


class Child:
    """One process with its log file. It dies with this process, whatever happens.

    When it is stopped it has `grace` seconds for its own way out.
    """

    def __init__(
        self, name: str, command: list[str], environment: Mapping[str, str], folder: Path, grace: float = 10
    ) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "infra.leash", str(grace), *command],
                env={**os.environ, **environment},
                cwd=Path(__file__).parent.parent,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C goes to the whole foreground group; when to stop is this process's decision.
                process_group=0,
            )

    def check(self) -> None:
        """Raise ChildDied when the process has ended."""
        code = self._process.poll()
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

    def stop(self) -> None:
        """Let go of the leash and wait until the process is gone."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

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
