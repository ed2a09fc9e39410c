"""The worker's side of the fork server (decoder.py), which forks a confined process for each image."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from typing import NamedTuple

from upres.core.errors import Unconfined, WorkerUnavailable
from upres.worker.imaging.decoder import NUMBER

START_SECONDS = 60
"""Longest time in seconds until a fork server that was started is ready: on a busy machine its imports take seconds."""
FORK_SECONDS = 10
"""Longest time in seconds until a fork server answers."""
MAX_REASON = 1 << 12
"""Longest greeting in bytes that is accepted."""


class ServerDied(Exception):
    """The fork server ended or did not answer; another one has to be started."""


class Decoder(NamedTuple):
    """A process that decodes one image, and the worker's end of its socket."""

    pid: int
    connection: socket.socket


class ForkServer:
    """A fork server, which is a child process; it starts with the object. Safe from all threads."""

    def __init__(self, memory: int) -> None:
        # It must not get the worker's environment, which holds credentials and addresses.
        environment = {"PYTHONPATH": os.pathsep.join(sys.path), "OPENBLAS_NUM_THREADS": "1"}
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "upres.worker.imaging.decoder", str(memory)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment
                | {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ},
                start_new_session=True,
            )
        self._lock = threading.Lock()
        self._greeted = False
        self._next: socket.socket | None = None
        """The worker's end of the socket of the process that was requested last, and not returned yet."""

    def fork(self) -> Decoder:
        """Return a new process for one image; the caller must give it to `end`.

        It was forked when the last one ended, so that an image waits for no fork, unless it comes at once. Raises
        ServerDied, Unconfined when the server could not confine itself, or WorkerUnavailable when the system makes no
        process.
        """
        try:
            with self._lock:
                self._greet()
                self._control.settimeout(FORK_SECONDS)
                decoder = self._forked() or self._forked()  # one that was tried earlier may have found no memory
        except (OSError, EOFError) as error:
            raise ServerDied(str(error)) from error
        if decoder is None:
            raise WorkerUnavailable("The system makes no process for a decoder; try again later.")
        return decoder

    def end(self, decoder: Decoder) -> None:
        """Kill a process that was forked, if it has not ended, let the server reap it, and fork the next one."""
        decoder.connection.close()
        # Its id is its own until the server reaps it. When the server has ended, the kernel has killed the process.
        if self.is_alive():
            with suppress(OSError), self._lock:
                os.kill(decoder.pid, signal.SIGKILL)
                self._control.settimeout(FORK_SECONDS)
                self._control.sendall(NUMBER.pack(decoder.pid))
                if self._next is None:
                    self._request()

    def is_alive(self) -> bool:
        """Return whether the server runs."""
        return self._process.poll() is None

    def close(self) -> None:
        """Kill the server, and with it all processes that it forked."""
        self._process.kill()
        self._process.wait()
        self._control.close()
        if self._next:
            self._next.close()

    def _greet(self) -> None:
        """Wait until the server has confined itself. Raises Unconfined when it could not, or OSError."""
        if self._greeted:
            return
        self._control.settimeout(START_SECONDS)
        try:
            (length,) = NUMBER.unpack(self._read(NUMBER.size))
            reason = json.loads(self._read(min(length, MAX_REASON))).get("unconfined")
        except EOFError as error:  # the server could not even start
            reason = str(error)
        if reason is not None:
            self.close()
            raise Unconfined(f"Images cannot be decoded safely on this machine: {reason}")
        self._greeted = True

    def _request(self) -> None:
        """Ask for a process. Raises OSError."""
        self._next, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(self._control, [NUMBER.pack(0)], [theirs.fileno()])

    def _forked(self) -> Decoder | None:
        """Return the process that was requested, after a request if there was none; None if it could not be made.

        Raises OSError, or EOFError when the server has ended.
        """
        if self._next is None:
            self._request()
        (pid,) = NUMBER.unpack(self._read(NUMBER.size))
        connection, self._next = self._next, None
        assert connection
        if pid:
            return Decoder(pid, connection)
        connection.close()
        return None

    def _read(self, length: int) -> bytes:
        """Read from the server. Raises EOFError when it has ended, or OSError."""
        data = b""
        while len(data) < length:
            got = self._control.recv(length - len(data))
            if not got:
                raise EOFError("the decoder died")
            data += got
        return data
