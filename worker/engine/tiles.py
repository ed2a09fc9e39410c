"""Cuts windows out of an image, and pastes the enlarged cores into the result. core/tiling.py plans the tiles."""

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from upres.core.tiling import Span, Tile

Scalar = TypeVar("Scalar", bound=np.generic)


def cut(pixels: npt.NDArray[Scalar], tile: Tile) -> npt.NDArray[Scalar]:
    """Return a tile's window of an image (height, width, …), as a view."""
    return pixels[slice(*tile.window_rows), slice(*tile.window_columns)]


def paste(
    output: npt.NDArray[Scalar], tile: Tile, enlarged: npt.NDArray[Scalar], factor: int, first_row: int = 0
) -> None:
    """Write the core of an enlarged window into the output (rows, width·factor, …).

    The output may be a band of the whole result, which begins at the input row `first_row`.
    """
    rows, columns = tile.core_rows, tile.core_columns
    top, left = tile.window_rows.start, tile.window_columns.start
    output[_scaled(rows, first_row, factor), _scaled(columns, 0, factor)] = enlarged[
        _scaled(rows, top, factor), _scaled(columns, left, factor)
    ]


def _scaled(span: Span, origin: int, factor: int) -> slice:
    return slice((span.start - origin) * factor, (span.stop - origin) * factor)
