"""DNS lookups that end in time."""

import socket
import threading
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any


class Lookup:
    """A lookup of the addresses of a host. It runs in a thread, because a lookup that hangs cannot be interrupted."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._answer: Future[list[Any]] = Future()
        threading.Thread(target=self._run, name="resolver", daemon=True).start()

    def _run(self) -> None:
        with suppress(InvalidStateError):  # nobody waits for it any more
            try:
                self._answer.set_result(socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM))
            except Exception as error:
                self._answer.set_exception(error)

    def wait(self, seconds: float) -> list[Any]:
        """Return what socket.getaddrinfo returns. Raises socket.gaierror: EAI_AGAIN if no answer comes in `seconds`."""
        try:
            return self._answer.result(seconds)
        except TimeoutError:
            raise _silence() from None

    def abort(self) -> None:
        """End `wait` now, from another thread, as if the time were up."""
        with suppress(InvalidStateError):  # it has its answer
            self._answer.set_exception(_silence())


def _silence() -> socket.gaierror:
    return socket.gaierror(socket.EAI_AGAIN, "the DNS lookup took too long")
