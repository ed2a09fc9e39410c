"""Keeps flat areas flat at the edges of an image.

Networks pad their input with zeros, which is black. At the edge of a flat bright area their output is up to 19 grey
levels off. Other padding of the input removes that, but costs 0.01 to 0.1 dB on photos, because networks are trained
with zeros, and 3 to 13 percent of the time of small images (benchmarks/RESULTS.md). So the network keeps its padding.
Where the image is flat, its enlargement is known, and replaces the network's output near the edge.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from upres.core.tiling import Span

Pixels = npt.NDArray[np.uint8]

DEPTH = 4
"""Distance in input pixels from the edge up to which the output is replaced; by measurement it is within two levels
further inside."""
RADIUS = 4
"""An area is flat around a pixel if the pixels within this distance, in rows and columns, are nearly equal."""
FLAT, UNEVEN = 2, 8
"""Range of an area in grey levels up to which the known colour is taken, and from which the network's output is taken;
between them the two are mixed."""


def keep_flat(enlarged: Pixels, pixels: Pixels, rows: Span, columns: Span, factor: int) -> None:
    """Correct a piece of an enlargement of `pixels` (height, width, 3), in place; the spans say which input pixels.

    Each output pixel depends on the input and the network's output at its place only, so the order of pieces does not
    matter.
    """
    for part_rows, part_columns in _strips(rows, columns, *pixels.shape[:2]):
        weight = _flatness(pixels, part_rows, part_columns)
        if not weight.any():
            continue
        piece = enlarged[_within(part_rows, rows, factor), _within(part_columns, columns, factor)]
        known = pixels[slice(*part_rows), slice(*part_columns)].astype(np.float32)
        known, weight = (one.repeat(factor, 0).repeat(factor, 1) for one in (known, weight[..., None]))
        piece[:] = np.rint(piece + weight * (known - piece))


def _strips(rows: Span, columns: Span, height: int, width: int) -> Iterator[tuple[Span, Span]]:
    """Yield the parts of a piece that are near the edge of the image: top, bottom, and between them left and right."""
    top, middle, bottom = _cut(rows, height)
    left, _, right = _cut(columns, width)
    for part in ((top, columns), (bottom, columns), (middle, left), (middle, right)):
        if all(span.start < span.stop for span in part):
            yield part


def _cut(span: Span, length: int) -> tuple[Span, Span, Span]:
    """Divide a span into the parts that are near the start of the image, near neither end, and near the end."""
    first = min(DEPTH, length)
    last = max(first, length - DEPTH)
    return (
        Span(span.start, min(span.stop, first)),
        Span(max(span.start, first), min(span.stop, last)),
        Span(max(span.start, last), span.stop),
    )


def _flatness(pixels: Pixels, rows: Span, columns: Span) -> npt.NDArray[np.float32]:
    """Return how flat the area around each pixel is, from 0 to 1; the image is continued by its outermost pixels."""
    around = [np.arange(span.start - RADIUS, span.stop + RADIUS) for span in (rows, columns)]
    inside = [one.clip(0, length - 1) for one, length in zip(around, pixels.shape, strict=False)]
    area = pixels[inside[0]].take(inside[1], 1)
    spread = (_extreme(np.maximum, area) - _extreme(np.minimum, area)).max(2).astype(np.float32)
    weight: npt.NDArray[np.float32] = np.clip((UNEVEN - spread) / (UNEVEN - FLAT), 0, 1)
    return weight


def _extreme(pick: np.ufunc, values: Pixels) -> Pixels:
    """Return the largest or smallest value of each window of 2·RADIUS + 1 rows and columns, by doubling the windows."""
    for _ in range(2):
        values, side = values.swapaxes(0, 1), 1
        while side < 2 * RADIUS + 1:
            step = min(side, 2 * RADIUS + 1 - side)
            values, side = pick(values[:-step], values[step:]), side + step
    return values


def _within(part: Span, whole: Span, factor: int) -> slice:
    return slice((part.start - whole.start) * factor, (part.stop - whole.start) * factor)
