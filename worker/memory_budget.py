"""Admits jobs by the memory that they need: jobs that each fit alone must not exceed the process's limit together."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from upres.core.schema import Depth, OutputFormat

SHARE = 0.9
"""Share of the memory that is free at the start which jobs may use; the rest is for decoders, uploads and estimates
that are too low."""
JOB_BYTES, DEEP_JOB_BYTES = 100_000_000, 340_000_000
"""Memory of any job in bytes, with samples of 8 and of 16 bits: tiles in flight, and buffers of the encoder. By
measurement one window of 640 pixels with alpha takes 46 and 241 MB while it is put together."""
SAMPLE_BYTES: dict[OutputFormat, float] = {
    "png": 1,
    "tiff": 2,
    "jpeg": 13 / 3,
    "webp": 13 / 3,
    "gif": 7,
    "jxl": 5.5,
    "avif": 15,
}
"""Memory of a job for each byte of its uncompressed result, by measurement: PNG and TIFF are written in bands, the
others need it whole; libaom copies it to several planes of 16 bits. PNG is also sent meanwhile: a result of 768 MB took
364 MB, which are bands of rows."""
SEVERAL_BYTES: dict[OutputFormat, float] = {"png": 2, "tiff": 2, "webp": 5, "gif": 2}
"""The same for all frames or pages beside one of them: WebP is written from all, the others hold compressed ones."""


def estimate(size: int, format: OutputFormat, depth: Depth = 8, frames: int = 1) -> int:
    """Return the bytes of memory that a job needs at most whose result has `size` bytes before its compression."""
    several = SEVERAL_BYTES.get(format, 0) * size if frames > 1 else 0
    return round((JOB_BYTES if depth == 8 else DEEP_JOB_BYTES) + several + SAMPLE_BYTES[format] * size / frames)


class MemoryBudget:
    """`total` bytes, which jobs reserve for as long as they need them. Thread-safe."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._used = 0
        self._waiting: list[object] = []
        self._changed = threading.Condition()

    @contextmanager
    def reserve(self, bytes: int, on_wait: Callable[[], None]) -> Iterator[None]:
        """Reserve memory for the block, in the order of the calls; a job that is too large for the budget runs alone.

        `on_wait` is called once if the job has to wait.
        """
        ticket = object()
        with self._changed:
            self._waiting.append(ticket)
            is_free = self._may_enter(ticket, bytes)
        try:
            if not is_free:
                on_wait()
            with self._changed:
                self._changed.wait_for(lambda: self._may_enter(ticket, bytes))
                self._used += bytes
        finally:
            with self._changed:
                self._waiting.remove(ticket)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._used -= bytes
                self._changed.notify_all()

    def _may_enter(self, ticket: object, bytes: int) -> bool:
        return self._waiting[0] is ticket and (not self._used or self._used + bytes <= self._total)
