"""Pads windows to the sides that a network requires, where its graph does not do it: as spandrel pads for torch."""

import numpy as np
import numpy.typing as npt

from upres.core.manifest import Sides

Pixels = npt.NDArray[np.uint8]


def padded(windows: Pixels, sides: Sides) -> Pixels:
    """Continue windows (count, height, width, 3) to the right and below, to sides that the network accepts.

    By reflection, as far as the windows are wide and high enough, and then by repetition.
    """
    height, width = windows.shape[1:3]
    accepted = [_accepted(length, sides) for length in (height, width)]
    if sides.square:
        accepted = [max(accepted)] * 2
    for axis, (wanted, length) in enumerate(zip(accepted, (height, width), strict=True), 1):
        reflected = min(wanted, 2 * length - 1)
        windows = _continued(windows, axis, reflected, "reflect")
        windows = _continued(windows, axis, wanted, "edge")
    return windows


def _accepted(length: int, sides: Sides) -> int:
    return -(-max(sides.smallest, length) // sides.multiple_of) * sides.multiple_of


def _continued(windows: Pixels, axis: int, length: int, mode: str) -> Pixels:
    missing = [(0, length - have if number == axis else 0) for number, have in enumerate(windows.shape)]
    return np.pad(windows, missing, mode=mode) if missing[axis][1] else windows  # type: ignore[call-overload]
