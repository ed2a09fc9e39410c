"""The device thread: the only thread that uses the device. It runs batches with windows of all jobs in flight.

While the device computes one batch, this thread prepares the next one and delivers the results of the one before.
"""

import logging
import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from upres.core import tiling
from upres.core.errors import DeviceLost, DeviceOutOfMemory, UpresError
from upres.worker.engine import tiles
from upres.worker.engine.batching import Batcher
from upres.worker.engine.compute import Compute, Finish, OutOfMemory
from upres.worker.engine.limits import Limits

log = logging.getLogger("upres.worker")

Pixels = npt.NDArray[np.uint8]

LINGER_SECONDS = 0.002
"""Seconds that a batch which is not full waits for windows of other jobs, if there are other jobs."""


class Shape(NamedTuple):
    """The properties that all windows of one batch share; height, width, halo and grid are in input pixels."""

    compute: Compute
    limits: Limits
    factor: int
    height: int
    width: int
    halo: int
    grid: int = 1


class Window(NamedTuple):
    """A window of one tile that is to be enlarged.

    `pixels` are (height, width, 3); the future `enlarged` gets (height·factor, width·factor, 3).
    """

    pixels: Pixels
    shape: Shape
    enlarged: "Future[Pixels]"


Running = deque[tuple[list[Window], Finish]]
"""Batches that are started and not finished, the oldest first."""


@dataclass
class Stats:
    """Statistics of the device since the thread was started. Other threads may read them.

    `busy_seconds` is the time in which the device computed; where it has no clock, that in which it had a batch.
    `since` is of time.monotonic.
    """

    sizes: Counter[int] = field(default_factory=Counter)
    """Number of batches, by the number of tiles in them."""
    busy_seconds: float = 0.0
    since: float = 0.0

    @property
    def batches(self) -> int:
        """Number of batches."""
        return self.sizes.total()

    @property
    def tiles(self) -> int:
        """Number of tiles in all batches."""
        return sum(size * count for size, count in list(self.sizes.items()))

    def busy_share(self) -> float:
        """Return the share of the time since the start in which the device was busy, 0 to 1."""
        return self.busy_seconds / max(1e-9, time.monotonic() - self.since)


class DeviceThread:
    """Runs the windows that other threads submit, for all models. `lost` is set when the device is lost."""

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
        """Open a lane for the windows of one job. The caller must close it with `close_lane`."""
        with self._changed:
            self._lanes += 1
        return object()

    def close_lane(self, lane: Hashable) -> None:
        """Close a lane, and drop the windows that still wait in it."""
        with self._changed:
            self._lanes -= 1
            self._batcher.drop(lane)

    def submit(self, lane: Hashable, window: Window) -> "Future[Pixels]":
        """Enqueue a window, and return the future of its enlargement. Raises DeviceLost.

        The future raises DeviceOutOfMemory, DeviceLost, or the error that this window causes in a batch of its own.
        """
        if self.lost:
            raise self.lost
        with self._changed:
            self._batcher.add(lane, window.shape, window)
            self._changed.notify()
        return window.enlarged

    def seconds_in_call(self) -> float:
        """Return for how many seconds the current call of the device has run; 0 while the thread waits for work."""
        began = self._call_began
        return 0 if began is None else time.monotonic() - began

    def close(self) -> None:
        """Finish all windows that were submitted, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _serve(self) -> None:
        """Run batches until the thread is closed. At most `batches_ahead` batches are started and not finished."""
        running: Running = deque()
        while (batch := self._next(wait=not running)) or running:
            compute = (batch or running[0][0])[0].shape.compute
            self._call_began, computed = time.monotonic(), compute.seconds
            if batch:
                self._start(batch, running)
            if running and (not batch or len(running) >= batch[0].shape.compute.batches_ahead):
                self._finish(running)
            self.stats.busy_seconds += self._busy_seconds(compute, computed)
            self._call_began = None

    def _busy_seconds(self, compute: Compute, before: float | None) -> float:
        """Return for how many seconds the device computed in this call: by its own clock if it has one."""
        if compute.seconds is None or before is None:
            return self.seconds_in_call()
        return compute.seconds - before

    def _next(self, wait: bool) -> list[Window]:
        """Return the next batch. Empty when none waits and `wait` is false, or when the thread is closed."""
        with self._changed:
            while (shape := self._batcher.next_shape()) is None:
                if not wait or self._closed:
                    return []
                self._changed.wait()
            assert isinstance(shape, Shape)
            limit = max(1, shape.limits.batch_pixels(shape.factor) // (shape.height * shape.width))
            batch = self._batcher.take(shape, limit)
            if wait and len(batch) < min(limit, self._lanes):
                self._changed.wait(LINGER_SECONDS)
                batch += self._batcher.take(shape, limit - len(batch))
            return batch

    def _start(self, batch: list[Window], running: "Running") -> None:
        """Start a batch, and add it to those that run; when that fails, the futures of its windows are set at once."""
        self.stats.sizes[len(batch)] += 1
        shape = batch[0].shape
        try:
            running.append((batch, shape.compute.start(shape.factor, [window.pixels for window in batch])))
            return
        except OutOfMemory:
            ran_out = True
        except Exception:
            ran_out = False
        self._recover(batch, ran_out)  # not in the except block: the error holds tensors of the batch

    def _finish(self, running: "Running") -> None:
        """Wait for the batch that was started first, and set the futures of its windows."""
        batch, finish = running.popleft()
        try:
            pixels = finish()
        except OutOfMemory:
            ran_out = True
        except Exception:
            ran_out = False
        else:
            for window, enlarged in zip(batch, pixels, strict=True):
                window.enlarged.set_result(enlarged)
            return
        del finish  # it holds tensors of the batch, too, and nothing else holds it
        self._recover(batch, ran_out)

    def _recover(self, batch: list[Window], ran_out: bool) -> None:
        """Run the windows of a failed batch anew, so that only the window that causes the error fails.

        When memory ran out, in two smaller batches, as from now on; else one by one.
        """
        shape = batch[0].shape
        if ran_out and len(batch) > 1:
            shape.limits.batch_failed(shape.factor, len(batch), shape.height * shape.width)
            half = len(batch) // 2
            for part in (batch[:half], batch[half:]):
                running: Running = deque()
                self._start(part, running)
                if running:
                    self._finish(running)
            return
        for window in batch:
            self._run_one(window)

    def _run_one(self, window: Window) -> None:
        """Run a window in a batch of its own, and set its future. When the device is lost, all windows fail."""
        try:
            if self.lost:
                raise self.lost
            window.enlarged.set_result(self._run_alone(window, window.pixels))
        except OutOfMemory:
            window.enlarged.set_exception(DeviceOutOfMemory("The device has too little memory; try again later."))
        except UpresError as error:  # about this window's image
            window.enlarged.set_exception(error)
        except Exception as error:
            traceback.clear_frames(error.__traceback__)  # they hold tensors, and a job keeps its error
            window.enlarged.set_exception(self._lost_by(window.shape.compute, error) or error)

    def _lost_by(self, compute: Compute, error: Exception) -> DeviceLost | None:
        """Ask the device whether it still works after an error: texts of drivers say it in too many ways.

        Returns the error of all later windows when it does not.
        """
        try:
            compute.probe()
        except Exception as silence:
            log.error("the device broke down: %s; asked again: %s", error, silence)
            self.lost = DeviceLost(f"The device broke down ({error}); the job is tried again elsewhere.")
        return self.lost

    def _run_alone(self, window: Window, pixels: Pixels) -> Pixels:
        """Run a window, or a part of it, in a batch of its own. When memory runs out, split it into about four windows.

        These overlap by twice the halo, so that the pixels stay the same. Raises OutOfMemory when the part is too small
        to split.
        """
        shape, (height, width) = window.shape, pixels.shape[:2]
        size = (max(height, width) // 2 + shape.halo) // shape.grid * shape.grid
        try:
            enlarged: Pixels = shape.compute.start(shape.factor, [pixels])()[0]
            return enlarged
        except OutOfMemory:
            if size <= 2 * shape.halo or size >= max(height, width):
                raise
        shape.limits.window_failed(shape.factor, size, height * width)
        output = np.empty((height * shape.factor, width * shape.factor, 3), np.uint8)
        for tile in tiling.plan(height, width, size, shape.halo, shape.grid):
            tiles.paste(output, tile, self._run_alone(window, tiles.cut(pixels, tile)), shape.factor)
        return output
