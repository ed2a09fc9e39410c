"""The engine: enlarges the images of many jobs at once, in tiles, on one device, in bounded memory.

    upscale() ── windows ──► lanes ──► device thread ── batches ──► compute
        ▲                                    │
        └──────── enlarged windows ──────────┘        bands of rows ──► encoder

Each job cuts only as many windows as keep the device busy, and yields each band of rows as soon as it is complete. So
neither the engine nor the device holds more of a result than one band and these windows.
"""

from collections import deque
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future

import numpy as np
import numpy.typing as npt

from upres.core import tiling
from upres.core.manifest import Manifest
from upres.core.tiling import TILE, Pass, Span, Tile
from upres.worker.engine import borders, ensemble, planes, tiles
from upres.worker.engine.compute import Compute
from upres.worker.engine.device_thread import DeviceThread, Shape, Window
from upres.worker.engine.limits import Limits
from upres.worker.samples import Samples, eight_bits

Pixels = npt.NDArray[np.uint8]
OnTile = Callable[[int, int], None]
"""Called after each tile with (done, total). An exception that it raises stops the enlargement.

Each orientation of an ensemble counts as a tile."""
OnPiece = Callable[[int, int, Samples], None]
"""Called with each finished piece of the result: its top row, left column, and (height, width, 3 or 4) pixels."""

WINDOWS_AHEAD = 4
"""Maximum number of windows of one job that are submitted and not pasted: two batches of two of the largest windows on
CUDA, so that the device computes one batch while the other one is copied."""


class Engine:
    """One model on a device, which other models may share. Safe from all threads."""

    def __init__(self, manifest: Manifest, compute: Compute, device: DeviceThread, tile: int = TILE) -> None:
        self.manifest = manifest
        self.compute = compute
        self.limits = Limits(tile, compute.batch_pixels, tiling.smallest(manifest))
        self._thread = device

    @property
    def tile(self) -> int:
        """The largest side of a window in input pixels."""
        return self.limits.tile

    def warm_up(self) -> None:
        """Run every network once, so that the first job does not wait for one-time work, such as allocating memory.

        On a device with memory of its own, this also finds out how large a batch may be.
        """
        for network in self.manifest.networks:
            side = min(self.tile, self.compute.warm_up_side)
            self.upscale(np.zeros((side, side, 3), np.uint8), network.factor)
            if most := self.compute.largest_batch(network.factor):
                self.limits.limit_batch(network.factor, most)

    def upscale(
        self,
        pixels: Samples,
        factor: int,
        on_tile: OnTile = lambda done, total: None,
        orientations: int = 1,
    ) -> Samples:
        """Enlarge an image at once. Raises what `bands` raises."""
        return np.concatenate(list(self.bands(pixels, factor, on_tile, orientations=orientations)))

    def bands(
        self,
        pixels: Samples,
        factor: int,
        on_tile: OnTile = lambda done, total: None,
        first_row: int = 0,
        on_piece: OnPiece | None = None,
        orientations: int = 1,
    ) -> Iterator[Samples]:
        """Enlarge (height, width, 3) RGB of 8 or 16 bits, and yield bands of rows (rows, width·factor, 3) from the top.

        With a fourth channel, alpha, the bands have one too; the colours where it is 0 must be filled already. Factor 1
        leaves alpha as it is.
        Begins at the output row `first_row`; the tiles above it count as done. The pixels are the same as without
        tiles, and do not depend on other jobs in flight. A factor without a network of its own runs as a chain,
        8 = 4 · 2; `on_tile` then counts the tiles of both. With ORIENTATIONS the result is the average of so many
        orientations of the image (worker/engine/ensemble.py). Raises ModelError when the model cannot make the factor,
        DeviceOutOfMemory, DeviceLost or OutputNotFinite.
        """
        passes = tiling.passes(self.manifest, pixels.shape[0], pixels.shape[1], factor, self.tile)
        count = _TileCount(sum(len(step.tiles) for step in passes) * orientations, on_tile)
        last = passes[-1]
        below = _tiles_below(last, first_row)
        count.skip((len(last.tiles) - len(below)) * orientations)
        lane = self._thread.open_lane()
        try:
            for step in passes[:-1]:
                pixels = np.concatenate(list(self._run(lane, pixels, step, count, orientations)))
            for band in self._run(lane, pixels, last._replace(tiles=below), count, orientations, on_piece):
                yield band[max(0, first_row - (below[0].core_rows.start * last.network.factor)) :]
                first_row = 0
        finally:
            self._thread.close_lane(lane)

    def progress_at(self, pixels: Samples, factor: int, first_row: int, orientations: int = 1) -> tuple[int, int]:
        """Return how many tiles count as done when `bands` begins at an output row, and the total number."""
        passes = tiling.passes(self.manifest, pixels.shape[0], pixels.shape[1], factor, self.tile)
        above = len(passes[-1].tiles) - len(_tiles_below(passes[-1], first_row))
        return above * orientations, sum(len(step.tiles) for step in passes) * orientations

    def _run(
        self,
        lane: Hashable,
        pixels: Samples,
        step: Pass,
        count: "_TileCount",
        orientations: int,
        on_piece: OnPiece | None = None,
    ) -> Iterator[Samples]:
        """Run one network over one image, and yield bands of its output rows."""
        factor = step.network.factor
        windows = self._enlarged(lane, pixels, step, count, orientations)
        for tile, enlarged in zip(step.tiles, windows, strict=True):
            first = tile.core_rows.start
            if tile.core_columns.start == 0:
                rows = (tile.core_rows.stop - first) * factor
                band = np.empty((rows, step.width * factor, pixels.shape[2]), pixels.dtype)
            tiles.paste(band, tile, enlarged, factor, first)
            columns = Span(tile.core_columns.start * factor, tile.core_columns.stop * factor)
            piece = band[:, slice(*columns)]
            if on_piece:
                on_piece(first * factor, columns.start, piece)
            count.add_one()
            if tile.core_columns.stop == step.width:
                yield band

    def _enlarged(
        self, lane: Hashable, pixels: Samples, step: Pass, count: "_TileCount", orientations: int
    ) -> Iterator[Samples]:
        """Yield the enlarged window of each tile; of all its orientations but the last one, count each as a tile."""
        made = self._made(lane, _windows(pixels, step, orientations), step)
        colours, factor = eight_bits(pixels[..., :3]), step.network.factor
        for tile in step.tiles:
            window = tiles.cut(pixels, tile)
            inside = slice(window.shape[0] * factor), slice(window.shape[1] * factor)  # without what was padded
            rgb = _average(made, orientations, count.add_one)[inside]
            borders.keep_flat(rgb, tile, colours, factor)
            alpha = [_average(made, orientations)[inside] for _ in planes.split(window, factor)[1:]]
            yield planes.joined([rgb, *alpha], window, factor)

    def _made(self, lane: Hashable, windows: Iterator[Pixels], step: Pass) -> Iterator[Pixels]:
        """Yield what the network makes of windows, and submit WINDOWS_AHEAD of them meanwhile."""
        network = step.network
        in_flight: deque[Future[Pixels]] = deque()
        for window in windows:
            size = window.shape[0], window.shape[1], network.margin, network.grid
            shape = Shape(self.compute, self.limits, network.factor, *size)
            in_flight.append(self._thread.submit(lane, Window(window, shape, Future())))
            if len(in_flight) == WINDOWS_AHEAD:
                yield in_flight.popleft().result()
        while in_flight:
            yield in_flight.popleft().result()


def _windows(pixels: Samples, step: Pass, orientations: int) -> Iterator[Pixels]:
    """Yield the windows of all tiles, for each its colours and its alpha, in each orientation."""
    for tile in step.tiles:
        for plane in planes.split(tiles.cut(pixels, tile), step.network.factor):
            window = eight_bits(plane)
            if orientations == 1:
                yield window
                continue
            whole = ensemble.padded(window, step.network.grid)
            yield from (ensemble.turned(whole, number) for number in range(orientations))


def _average(made: Iterator[Pixels], orientations: int, on_more: Callable[[], None] = lambda: None) -> Pixels:
    """Return the average of the next enlargements; `on_more` is called after each of them but the last one."""
    if orientations == 1:
        return next(made)
    average = ensemble.Average()
    for number in range(orientations):
        average.add(next(made), number)
        if number < orientations - 1:
            on_more()
    return average.rounded()


def _tiles_below(step: Pass, first_row: int) -> list[Tile]:
    """Return the tiles of which a part is at or below an output row."""
    return [tile for tile in step.tiles if tile.core_rows.stop * step.network.factor > first_row]


class _TileCount:
    """Counts the finished tiles of all passes of a job, and reports each to `on_tile`."""

    def __init__(self, total: int, on_tile: OnTile) -> None:
        self._done, self._total, self._on_tile = 0, total, on_tile

    def skip(self, tiles: int) -> None:
        self._done += tiles

    def add_one(self) -> None:
        self._done += 1
        self._on_tile(self._done, self._total)
