"""The one owner of the device: a thread that takes batches from all jobs in flight and runs them.

While the device works on one batch, the host prepares the next and hands out the one before.
"""

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from upres.core import tiling
from upres.core.errors import DeviceLost, DeviceOutOfMemory
from upres.worker.engine import tiles
from upres.worker.engine.batching import Batcher
from upres.worker.engine.compute import Compute, Finish, OutOfMemory

log = logging.getLogger("upres.worker")

Pixels = npt.NDArray[np.uint8]

LINGER_SECONDS = 0.002
"""How long a batch that is not full waits for other jobs, while there are others."""


class Shape(NamedTuple):
    """What tiles of one batch have in common."""

    compute: Compute
    factor: int
    height: int
    width: int
    halo: int


class Window(NamedTuple):
    """One tile on its way: what to enlarge, who waits for it, and who hears of a tile size that memory sufficed for."""

    pixels: Pixels
    shape: Shape
    enlarged: "Future[Pixels]"
    on_shrink: Callable[[int], None]


@dataclass
class Stats:
    """What the device did since it started; read by whoever wants to know.

    Busy is the time in which at least one batch was on it or on its way there or back.
    """

    sizes: Counter[int] = field(default_factory=Counter)
    """How many batches of how many tiles."""
    busy_seconds: float = 0.0
    since: float = 0.0

    @property
    def batches(self) -> int:
        """How many there were."""
        return self.sizes.total()

    @property
    def tiles(self) -> int:
        """How many tiles they had."""
        return sum(size * count for size, count in list(self.sizes.items()))

    def busy_share(self) -> float:
        """Share of the time since the start that the device was in use, 0 to 1."""
        return self.busy_seconds / max(1e-9, time.monotonic() - self.since)


class DeviceThread:
    """Runs windows that any thread submits, through any model."""

    def __init__(self) -> None:
        self._batcher: Batcher[Window] = Batcher()
        self._changed = threading.Condition()
        self._lanes = 0
        self._closed = False
        self._call_began: float | None = None
        self.lost: DeviceLost | None = None
        self.stats = Stats(since=time.monotonic())
        self._thread = threading.Thread(target=self._serve, name="device", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def open_lane(self) -> Hashable:
        """A place for one job's tiles; `close_lane` gives it up, with all that still waits in it."""
        with self._changed:
            self._lanes += 1
        return object()

    def close_lane(self, lane: Hashable) -> None:
        """The job wants no more."""
        with self._changed:
            self._lanes -= 1
            self._batcher.drop(lane)

    def submit(self, lane: Hashable, window: Window) -> "Future[Pixels]":
        """Enlarge a window. The future raises DeviceOutOfMemory, DeviceLost, or what this window alone causes."""
        if self.lost:
            raise self.lost
        with self._changed:
            self._batcher.add(lane, window.shape, window)
            self._changed.notify()
        return window.enlarged

    def seconds_in_call(self) -> float:
        """How long the device has been at what it does now; 0 while it waits for work."""
        began = self._call_began
        return 0 if began is None else time.monotonic() - began

    def close(self) -> None:
        """Finish what was submitted and end."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _serve(self) -> None:
        running: deque[tuple[list[Window], Finish]] = deque()
        while (batch := self._next(wait=not running)) or running:
            self._call_began = begin = time.monotonic()
            if batch and (finish := self._start(batch)):
                running.append((batch, finish))
            if running and (not batch or len(running) >= batch[0].shape.compute.batches_ahead):
                self._finish(*running.popleft())
            self._call_began = None
            self.stats.busy_seconds += time.monotonic() - begin

    def _next(self, wait: bool) -> list[Window]:
        """The next batch; empty when there is none now, or none will come any more."""
        with self._changed:
            while (shape := self._batcher.next_shape()) is None:
                if not wait or self._closed:
                    return []
                self._changed.wait()
            assert isinstance(shape, Shape)
            limit = max(1, shape.compute.batch_pixels // (shape.height * shape.width))
            batch = self._batcher.take(shape, limit)
            if wait and len(batch) < min(limit, self._lanes):
                self._changed.wait(LINGER_SECONDS)
                batch += self._batcher.take(shape, limit - len(batch))
            return batch

    def _start(self, batch: list[Window]) -> Finish | None:
        """Begin with a batch; None when it failed, and everyone in it was told."""
        self.stats.sizes[len(batch)] += 1
        try:
            shape = batch[0].shape
            return shape.compute.start(shape.factor, [window.pixels for window in batch])
        except Exception as error:
            self._recover(batch, error)
            return None

    def _finish(self, batch: list[Window], finish: Finish) -> None:
        try:
            pixels = finish()
        except Exception as error:
            self._recover(batch, error)
        else:
            for window, enlarged in zip(batch, pixels, strict=True):
                window.enlarged.set_result(enlarged)

    def _recover(self, batch: list[Window], error: Exception) -> None:
        """One by one: what fails alone is guilty, the others never know. A lost device fails all."""
        if is_sticky(error):
            log.error("the device broke down", exc_info=error)
            self.lost = DeviceLost(f"The device broke down ({error}); the job is tried again elsewhere.")
        for window in batch:
            try:
                if self.lost:
                    raise self.lost
                window.enlarged.set_result(self._alone(window, window.pixels))
            except OutOfMemory:
                window.enlarged.set_exception(DeviceOutOfMemory("The device has too little memory; try again later."))
            except Exception as guilty:
                window.enlarged.set_exception(guilty)

    def _alone(self, window: Window, pixels: Pixels) -> Pixels:
        """A window, or a part of it, in a batch of its own; in quarters when memory does not suffice: as exact."""
        shape, (height, width) = window.shape, pixels.shape[:2]
        size = max(height, width) // 2 + shape.halo
        try:
            enlarged: Pixels = shape.compute.start(shape.factor, [pixels])()[0]
            return enlarged
        except OutOfMemory:
            if size <= 2 * shape.halo or size >= max(height, width):
                raise
        window.on_shrink(size)
        output = np.empty((height * shape.factor, width * shape.factor, 3), np.uint8)
        for tile in tiling.plan(height, width, size, shape.halo):
            tiles.paste(output, tile, self._alone(window, tiles.cut(pixels, tile)), shape.factor)
        return output


def is_sticky(error: Exception) -> bool:
    """Whether the CUDA context is gone: every later call in this process would fail as well."""
    sticky = ("illegal memory access", "device-side assert", "unspecified launch failure", "device is lost", "ECC")
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in sticky)
