"""A TCP proxy that injects faults on request: latency, partitions, connections that are reset or forgotten."""

import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

PIECE = 1 << 16
RESET = struct.pack("ii", 1, 0)
"""The SO_LINGER option that makes close() send RST instead of FIN."""


class FaultProxy:
    """Forwards connections from 127.0.0.1:port to 127.0.0.1:target; a context manager."""

    def __init__(self, target: int = 0) -> None:
        self.target = target
        self._latency = 0.0
        self._open = threading.Event()
        self._open.set()
        self._closed = False
        self._sockets: set[socket.socket] = set()
        self._forgotten: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]

    def __enter__(self) -> "FaultProxy":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._closed = True
        self._open.set()
        self._listener.close()
        self.reset()

    @contextmanager
    def latency(self, seconds: float) -> Iterator[None]:
        """Delay the data: by half of `seconds` in each direction."""
        self._latency = seconds / 2
        yield
        self._latency = 0

    @contextmanager
    def partition(self) -> Iterator[None]:
        """Forward no data, but keep the connections open."""
        self._open.clear()
        yield
        self._open.set()

    def reset(self) -> int:
        """Reset all open connections; return how many sockets were closed."""
        broken = list(self._sockets)
        for one in broken:
            _abort(one)
        return len(broken)

    def forget(self) -> None:
        """Discard all data of the open connections from now on, as a firewall that has forgotten them."""
        self._forgotten |= self._sockets

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                inner, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(inner,), daemon=True).start()

    def _serve(self, inner: socket.socket) -> None:
        self._open.wait()
        try:
            outer = socket.create_connection(("127.0.0.1", self.target), 5)
        except OSError:
            _abort(inner)
            return
        pair = {inner: outer, outer: inner}
        self._sockets |= set(pair)
        try:
            self._forward(pair)
        except (OSError, ValueError):
            pass
        finally:
            self._sockets -= set(pair)
            for one in pair:
                _abort(one)

    def _forward(self, pair: dict[socket.socket, socket.socket]) -> None:
        while not self._closed:
            readable, _, _ = select.select(list(pair), [], [], 1)
            for source in readable:
                data = source.recv(PIECE)
                self._open.wait()
                if not data:
                    return
                if source in self._forgotten:
                    continue
                if self._latency:
                    time.sleep(self._latency)
                pair[source].sendall(data)


def _abort(one: socket.socket) -> None:
    with suppress(OSError):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        one.shutdown(socket.SHUT_RDWR)
    one.close()
