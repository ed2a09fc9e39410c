"""What one model may ask of the device at once: the side of a window, and the pixels of a batch of each network.

Both become smaller when the device runs out of memory: first the batch, because a smaller one costs little time, then
the window, whose halo is computed anew in each window.
"""

import math
import threading
from collections.abc import Callable, Mapping


class Limits:
    """The limits of one model on one device; they never grow. Safe from all threads.

    `tile` is the largest side of a window in input pixels, at least `smallest_tile`; `batch_pixels` the most input
    pixels in a batch. `on_change` is called when lack of memory has made one smaller.
    """

    def __init__(self, tile: int, batch_pixels: int, smallest_tile: int = 1) -> None:
        self._lock = threading.Lock()
        self._smallest_tile = smallest_tile
        self._batch_pixels = batch_pixels
        self._of_networks: dict[int, int] = {}
        self.tile = max(tile, smallest_tile)
        self.on_change: Callable[[], None] = lambda: None

    def batch_pixels(self, factor: int) -> int:
        """Return the most input pixels in a batch of the network with this factor."""
        return self._of_networks.get(factor, self._batch_pixels)

    @property
    def networks(self) -> Mapping[int, int]:
        """Factor → most input pixels in a batch, for each network that has a limit of its own."""
        return dict(self._of_networks)

    def limit_tile(self, tile: int) -> None:
        """Use windows of at most this side, or of the smallest side that the halos allow."""
        with self._lock:
            self.tile = max(min(self.tile, tile), self._smallest_tile)

    def limit_batch(self, factor: int, pixels: int) -> None:
        """Use batches of at most so many input pixels for a network, and windows that fit into one."""
        with self._lock:
            self._of_networks[factor] = max(1, min(self.batch_pixels(factor), pixels))
        self.limit_tile(math.isqrt(self.batch_pixels(factor)))

    def restore(self, tile: int, networks: Mapping[int, int]) -> None:
        """Use the limits that another worker found: a narrow window may have a longer side than a square batch."""
        with self._lock:
            for factor, pixels in networks.items():
                self._of_networks[factor] = max(1, min(self.batch_pixels(factor), pixels))
        self.limit_tile(tile)

    def batch_failed(self, factor: int, count: int, window_pixels: int) -> None:
        """Halve the batches of a network: one of `count` windows, of so many pixels each, did not fit into memory."""
        with self._lock:
            before, half = self.batch_pixels(factor), count // 2 * window_pixels
            self._of_networks[factor] = max(1, min(before, half))
        if half < before:
            self.on_change()

    def window_failed(self, factor: int, tile: int, window_pixels: int) -> None:
        """Use windows of at most this side from now on: a single larger one of a network did not fit into memory.

        It had so many pixels. Several of the smaller ones together would not fit, either, so each is a batch.
        """
        with self._lock:
            before = self.tile, self.batch_pixels(factor)
            self._of_networks[factor] = max(1, min(before[1], tile**2, window_pixels - 1))
        self.limit_tile(tile)
        if (self.tile, self.batch_pixels(factor)) != before:
            self.on_change()
