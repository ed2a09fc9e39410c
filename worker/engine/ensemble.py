"""The eight orientations of a window, and the average of their enlargements (×8 self-ensemble, Lim et al. 2017, §4.2).

Windows, and not images, are turned: so a job needs no memory for eight results, and bands, previews and checkpoints are
the same with and without.
"""

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from upres.core.tiling import ORIENTATIONS

Pixels = npt.NDArray[np.uint8]
Scalar = TypeVar("Scalar", bound=np.generic)


def turned(window: npt.NDArray[Scalar], number: int) -> npt.NDArray[Scalar]:
    """Return a window (height, width, …) in one of its ORIENTATIONS, as a view; 0 is the one that it has."""
    window = window.swapaxes(0, 1) if number & 4 else window
    return _mirrored(window, number)


def turned_back(window: npt.NDArray[Scalar], number: int) -> npt.NDArray[Scalar]:
    """Undo `turned`."""
    window = _mirrored(window, number)
    return window.swapaxes(0, 1) if number & 4 else window


def _mirrored(window: npt.NDArray[Scalar], number: int) -> npt.NDArray[Scalar]:
    return window[:: -1 if number & 2 else 1, :: -1 if number & 1 else 1]


def padded(window: Pixels, grid: int) -> Pixels:
    """Continue a window by reflection to sides that are multiples of the network's grid.

    Then its squares are the same in each orientation. Only windows at the border of an image have other sides.
    """
    missing = [(0, -length % grid) for length in window.shape[:2]]
    return np.pad(window, (*missing, (0, 0)), mode="symmetric") if any(map(any, missing)) else window


class Average:
    """The sum of the enlargements of a window in all its orientations; rounded once, at the end."""

    def __init__(self) -> None:
        self._sum: npt.NDArray[np.uint16] | None = None

    def add(self, enlarged: Pixels, number: int) -> None:
        """Add the enlargement of the window in one orientation."""
        back = turned_back(enlarged, number)
        if self._sum is None:
            self._sum = back.astype(np.uint16)
        else:
            self._sum += back

    def rounded(self) -> Pixels:
        """Return the average of all orientations."""
        assert self._sum is not None
        return ((self._sum + ORIENTATIONS // 2) // ORIENTATIONS).astype(np.uint8)
