"""Exact tiling: which windows to cut from an image, and which part (core) of each enlarged window to keep.

A network without global operations computes an output pixel from the input pixels within its receptive radius. So an
output pixel of a window is correct when the window contains that many pixels around it (the halo), or ends at the
border of the image, where the network pads a window and the whole image in the same way. All windows of an image have
the same shape: the smallest for their number, in steps of GRAIN, so that tiles of different images can share a batch.
The last window of a row or column is shifted inward.

A network with attention in windows (SwinIR, Liu et al. 2021) divides its input into squares, from the top left corner.
Windows of such a network start at multiples of the squares' side, its `grid`, so that the squares are those of the
whole image. Its last window ends at the border and may be smaller than the others: the network pads it as it pads the
whole image. The functions are pure: they do no I/O.
"""

import math
from typing import NamedTuple

from upres.core.errors import ModelError
from upres.core.manifest import Manifest, Network

TILE = 640
"""Maximum side of a window in input pixels: with a halo of 35, at most 1.3 pixels are computed for each one kept."""
SMALLEST_CORE = 16
"""Minimum side of a core in input pixels; a window has at least this side plus two halos."""

ORIENTATIONS = 8
"""Orientations of a window that an ensemble averages: four rotations, each of them mirrored or not."""
GRAIN = 16
"""Window sides are multiples of this many pixels, unless the image or the maximum window size is smaller."""


class Span(NamedTuple):
    """A half-open range [start, stop) of pixels along one axis."""

    start: int
    stop: int


class Tile(NamedTuple):
    """A window to cut, with its halo, and the core to keep, both in input pixels of the whole image."""

    window_rows: Span
    window_columns: Span
    core_rows: Span
    core_columns: Span


class Pass(NamedTuple):
    """One run of a network over an image of height × width pixels, in tiles."""

    network: Network
    height: int
    width: int
    tiles: list[Tile]


def smallest(manifest: Manifest) -> int:
    """Return the minimum side of windows, in pixels, with which all networks of a model can be tiled."""
    return max(2 * one.margin + max(SMALLEST_CORE, one.grid) for one in manifest.networks)


def passes(manifest: Manifest, height: int, width: int, factor: int, size: int) -> list[Pass]:
    """Plan the passes that enlarge a height × width image by a factor, with windows of at most size × size pixels.

    A smaller `size` than `smallest` is raised to that. A factor without a network of its own takes several passes,
    such as 8 = 4 · 2. Raises ModelError when the model cannot make the factor.
    """
    chain = manifest.chain(factor)
    if not chain:
        raise ModelError(f"Model {manifest.name!r} has no networks for factor {factor}.")
    found, size = [], max(size, smallest(manifest))
    for network in chain:
        found.append(Pass(network, height, width, plan(height, width, size, network.margin, network.grid)))
        height, width = height * network.factor, width * network.factor
    return found


def plan(height: int, width: int, size: int, halo: int, grid: int = 1) -> list[Tile]:
    """Plan tiles, row by row, whose cores cover a height × width image exactly once.

    Windows have at most size × size pixels, and start at multiples of `grid`. Raises ValueError when a side is below 1,
    the halo is negative or no multiple of the grid, or the size leaves no core between two halos.
    """
    size = size // grid * grid
    if height < 1 or width < 1 or halo < 0 or halo % grid or size <= 2 * halo:
        raise ValueError(f"cannot tile {height}×{width} with size {size} and halo {halo}")
    return [
        Tile(window_rows, window_columns, core_rows, core_columns)
        for window_rows, core_rows in _spans(height, size, halo, grid)
        for window_columns, core_columns in _spans(width, size, halo, grid)
    ]


def _spans(length: int, size: int, halo: int, grid: int) -> list[tuple[Span, Span]]:
    """Return the windows and their cores along one axis."""
    if length <= size:
        return [(Span(0, length), Span(0, length))]
    count = -(-(length - 2 * halo) // (size - 2 * halo))
    size = min(size, _even_size(length, count, halo, grid))
    step = size - 2 * halo
    last = -(-(length - size) // grid) * grid
    spans = []
    for index in range(count):
        start = min(index * step, last)
        core_start = index * step + halo if index else 0
        core_stop = (index + 1) * step + halo if index < count - 1 else length
        spans.append((Span(start, min(start + size, length)), Span(core_start, core_stop)))
    return spans


def _even_size(length: int, count: int, halo: int, grid: int) -> int:
    """Return the smallest side, a multiple of GRAIN and of the grid, with which `count` windows cover the length."""
    size, step = -(-(length - 2 * halo) // count) + 2 * halo, math.lcm(GRAIN, grid)
    return min(length // grid * grid, -(-size // step) * step)
