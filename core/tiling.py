"""Exact tiling, pure: which windows to cut, and which part of each enlarged window is right.

A network without global operations computes an output pixel from the input pixels within its
receptive radius. So a window's output is right wherever the window reaches at least that far (the
halo), or ends at the image's own border, where the network pads tile and whole image alike.
All windows of an image have the same shape: as small as their number allows, in steps of GRAIN so that
the tiles of different images can share a batch, and the last of a row or column is shifted inward.
"""

from typing import NamedTuple

from upres.core.errors import ModelError
from upres.core.manifest import Manifest, Network

TILE = 640
"""Side of a window in input pixels: with a halo of 35, at most 1.3 pixels are computed for one that is kept."""
SMALLEST_CORE = 16
"""A window of a network with a large halo is at least so much larger than two of them."""

GRAIN = 16
"""Window sides are multiples of this, unless the image is smaller or the size that memory allows is."""


class Span(NamedTuple):
    """A half-open range [start, stop) of pixels along one axis."""

    start: int
    stop: int


class Tile(NamedTuple):
    """The window to cut (with halo) and the core to keep, both in input pixels."""

    window_rows: Span
    window_columns: Span
    core_rows: Span
    core_columns: Span


class Pass(NamedTuple):
    """One network over one image."""

    network: Network
    height: int
    width: int
    tiles: list[Tile]


def smallest(manifest: Manifest) -> int:
    """The least side of windows for all of a model's networks."""
    return 2 * max(network.margin for network in manifest.networks) + SMALLEST_CORE


def passes(manifest: Manifest, height: int, width: int, factor: int, size: int) -> list[Pass]:
    """What enlarges a height × width image by a factor, in windows of at most size × size.

    Factors without a network of their own are a chain, 8 = 4 · 2. Raises ModelError when the model cannot make
    the factor.
    """
    chain = manifest.chain(factor)
    if not chain:
        raise ModelError(f"Model {manifest.name!r} has no networks for factor {factor}.")
    found, size = [], max(size, smallest(manifest))
    for network in chain:
        found.append(Pass(network, height, width, plan(height, width, size, network.margin)))
        height, width = height * network.factor, width * network.factor
    return found


def plan(height: int, width: int, size: int, halo: int) -> list[Tile]:
    """Tiles, row by row, whose cores cover a height × width image exactly once.

    Windows measure at most size × size. Raises ValueError when a side or the
    halo is not sensible, or the size leaves no core between two halos.
    """
    if height < 1 or width < 1 or halo < 0 or size <= 2 * halo:
        raise ValueError(f"cannot tile {height}×{width} with size {size} and halo {halo}")
    return [
        Tile(window_rows, window_columns, core_rows, core_columns)
        for window_rows, core_rows in _spans(height, size, halo)
        for window_columns, core_columns in _spans(width, size, halo)
    ]


def _spans(length: int, size: int, halo: int) -> list[tuple[Span, Span]]:
    """Windows and cores along one axis."""
    if length <= size:
        return [(Span(0, length), Span(0, length))]
    count = -(-(length - 2 * halo) // (size - 2 * halo))
    size = min(size, _even_size(length, count, halo))
    step = size - 2 * halo
    spans = []
    for index in range(count):
        start = min(index * step, length - size)
        core_start = index * step + halo if index else 0
        core_stop = (index + 1) * step + halo if index < count - 1 else length
        spans.append((Span(start, start + size), Span(core_start, core_stop)))
    return spans


def _even_size(length: int, count: int, halo: int) -> int:
    """The smallest window with which so many are enough, of few sizes: a multiple of GRAIN."""
    size = -(-(length - 2 * halo) // count) + 2 * halo
    return min(length, -(-size // GRAIN) * GRAIN)
