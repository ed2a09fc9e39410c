"""Keeps flat areas flat at the edges of an image.

Networks pad their input with zeros, which is black. At the edge of a flat bright area their output is up to 19 grey
levels off. Other padding of the input removes that, but costs 0.01 to 0.1 dB on photos, because networks are trained
with zeros, and 3 to 13 percent of the time of small images (benchmarks/RESULTS.md). So the network keeps its padding.
Where the image is flat, the output near the edge is replaced by the network's own output further inside.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from upres.core.tiling import Span, Tile

Pixels = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.intp]
Weights = npt.NDArray[np.float32]

DEPTH = 4
"""Distance in input pixels from the edge up to which the output is replaced; by measurement it is within two levels
further inside."""
RADIUS = 4
"""An area is flat around a pixel if the pixels within this distance, in rows and columns, are nearly equal."""
FLAT, UNEVEN = 2, 8
"""Range of an area in grey levels up to which the output is replaced, and from which it is kept; between them the two
are mixed."""


def keep_flat(window: Pixels, tile: Tile, pixels: Pixels, factor: int) -> None:
    """Correct the enlarged window of a tile of `pixels` (height, width, 3), in place, in its core near the edges.

    The result depends on the image and the network's output only, not on the division into tiles.
    """
    height, width = pixels.shape[:2]
    for rows, columns in _strips(tile.core_rows, tile.core_columns, height, width):
        inner_rows = _inside(rows, height, tile.window_rows)
        inner_columns = _inside(columns, width, tile.window_columns)
        weight, inner_weight = _flatness(pixels, (rows, columns), (inner_rows, inner_columns))
        if not weight.any():
            continue
        top, left = tile.window_rows.start, tile.window_columns.start
        inner = window[_enlarged(inner_rows - top, factor)].take(_enlarged(inner_columns - left, factor), 1)
        known = pixels[rows].take(columns, 1).astype(np.float32)
        weight, inner_weight, known = (one.repeat(factor, 0).repeat(factor, 1) for one in (weight, inner_weight, known))
        inward = known + inner_weight * (inner - known)
        piece = window[
            (rows[0] - top) * factor : (rows[-1] + 1 - top) * factor,
            (columns[0] - left) * factor : (columns[-1] + 1 - left) * factor,
        ]
        piece[:] = np.rint(piece + weight * (inward - piece))


def _strips(rows: Span, columns: Span, height: int, width: int) -> Iterator[tuple[Indices, Indices]]:
    """Yield the rows and columns of a piece that are near the edge of the image: top, bottom, and the sides between."""
    top, middle, bottom = _cut(rows, height)
    left, _, right = _cut(columns, width)
    for part in ((top, columns), (bottom, columns), (middle, left), (middle, right)):
        if all(span.start < span.stop for span in part):
            yield np.arange(*part[0]), np.arange(*part[1])


def _cut(span: Span, length: int) -> tuple[Span, Span, Span]:
    """Divide a span into the parts that are near the start of the image, near neither end, and near the end."""
    first = min(DEPTH, length)
    last = max(first, length - DEPTH)
    return (
        Span(span.start, min(span.stop, first)),
        Span(max(span.start, first), min(span.stop, last)),
        Span(max(span.start, last), span.stop),
    )


def _inside(indices: Indices, length: int, window: Span) -> Indices:
    """Return for each row or column the nearest one that is DEPTH away from both ends of the image."""
    nearest = indices.clip(min(DEPTH, length // 2), max(length - 1 - DEPTH, length // 2))
    return nearest.clip(window.start, window.stop - 1)


def _flatness(pixels: Pixels, at: tuple[Indices, Indices], inside: tuple[Indices, Indices]) -> tuple[Weights, Weights]:
    """Return how flat the area is around each pixel, and around the one inside whose output would replace it, 0 to 1.

    In an image that is too small to have an inside, the second one is 0: its known colour is taken.
    """
    first = [min(one[0], other[0]) - RADIUS for one, other in zip(at, inside, strict=True)]
    last = [max(one[-1], other[-1]) + RADIUS for one, other in zip(at, inside, strict=True)]
    rows, columns = (
        np.arange(begin, end + 1).clip(0, length - 1)
        for begin, end, length in zip(first, last, pixels.shape, strict=False)
    )
    area = pixels[rows].take(columns, 1)
    spread = (_extreme(np.maximum, area) - _extreme(np.minimum, area)).max(2).astype(np.float32)
    flatness: Weights = np.clip((UNEVEN - spread) / (UNEVEN - FLAT), 0, 1)[..., None]
    (row, column), (inner_row, inner_column) = (
        tuple(one - begin - RADIUS for one, begin in zip(which, first, strict=True)) for which in (at, inside)
    )
    has_inside = min(pixels.shape[:2]) > 4 * DEPTH
    return flatness[row].take(column, 1), flatness[inner_row].take(inner_column, 1) * has_inside


def _extreme(pick: np.ufunc, values: Pixels) -> Pixels:
    """Return the largest or smallest value of each window of 2·RADIUS + 1 rows and columns, by doubling the windows."""
    for _ in range(2):
        values, side = values.swapaxes(0, 1), 1
        while side < 2 * RADIUS + 1:
            step = min(side, 2 * RADIUS + 1 - side)
            values, side = pick(values[:-step], values[step:]), side + step
    return values


def _enlarged(indices: Indices, factor: int) -> Indices:
    """Return the output rows or columns of these input rows or columns."""
    return (indices[:, None] * factor + np.arange(factor)).ravel()
