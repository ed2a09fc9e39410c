"""What an operation of the client consists of: requests, pauses and bodies; does no I/O."""

import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from upres.client.errors import JobTimeout

Answer = TypeVar("Answer")
OnBytes = Callable[[int, int], None]
"""Upload callback: called with (bytes sent, bytes in total) after each piece."""

PIECE_BYTES = 1 << 16
"""Size in bytes of the pieces of uploads and downloads."""


class Body:
    """The body of an upload, in pieces of PIECE_BYTES, for the synchronous and the asyncio client."""

    def __init__(self, data: bytes, on_bytes: OnBytes) -> None:
        self._data, self._on_bytes = data, on_bytes

    def pieces(self, until: "Deadline") -> Iterator[bytes]:
        """Yield all pieces in order; call `on_bytes` after each of them. Raises JobTimeout."""
        for start in range(0, len(self._data), PIECE_BYTES):
            _ = until.left
            piece = self._data[start : start + PIECE_BYTES]
            yield piece
            self._on_bytes(start + len(piece), len(self._data))

    async def pieces_async(self, until: "Deadline") -> AsyncIterator[bytes]:
        """The same as `pieces`, as an asynchronous iterator."""
        for piece in self.pieces(until):
            yield piece


@dataclass(frozen=True)
class Call:
    """One HTTP request that an operation asks its client to send."""

    method: str
    url: str
    json: object = None
    content: Body | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    without_key: bool = False
    """Whether the request carries no API key although it goes to upres: its address came from elsewhere."""
    to_store: bool = False
    """Whether the request goes to the object store. It then carries no API key: the store must not see it."""


class Pause(NamedTuple):
    """A step that asks the client to wait before the next step."""

    seconds: float


Steps = Generator[Call | Pause, Any, Answer]
"""An operation. It yields Call and Pause steps, receives a response for each Call and None after each Pause."""


class Deadline:
    """The end of the time in seconds that a caller gives to a job; without one there is no end."""

    def __init__(self, seconds: float | None, job: str = "The job") -> None:
        self._until = None if seconds is None else time.monotonic() + seconds
        self._job = job

    @property
    def left(self) -> float | None:
        """The seconds left; None without a deadline. Raises JobTimeout when none are left."""
        if self._until is None:
            return None
        left = self._until - time.monotonic()
        if left <= 0:
            raise JobTimeout(f"{self._job} has not ended in time; if it was accepted, it goes on.")
        return left

    def limit_all(self, seconds: Mapping[str, float]) -> dict[str, float]:
        """The timeouts of a request of httpx, each limited. Raises JobTimeout."""
        return {name: self.limit(value) for name, value in seconds.items()}

    def limit(self, seconds: float) -> float:
        """The seconds, but at most those left. Raises JobTimeout."""
        left = self.left
        return seconds if left is None else min(seconds, left)


NO_DEADLINE = Deadline(None)
CANCEL_SECONDS = 5
"""Seconds for the cancellation of a job when its caller gives up."""
