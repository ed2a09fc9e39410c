"""What runs the networks of a model on a device: uint8 windows in, uint8 windows out."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Finish = Callable[[], Pixels]
"""Waits for a batch that was started: (count, height·factor, width·factor, 3)."""


class OutOfMemory(Exception):
    """The device has too little memory for a batch; a smaller one may fit."""


class Compute(Protocol):
    """The networks of one model on one device. Called from one thread."""

    precision: str
    """What tiles are computed in, for people."""
    batch_pixels: int
    """How many pixels a batch may have before more of them make it no faster per pixel."""
    batches_ahead: int
    """How many batches may be under way: 1 where `start` itself does the work."""
    warm_up_side: int
    """Side of the window, in pixels, with which the first use is prepared for all others."""

    def start(self, factor: int, windows: Sequence[Pixels]) -> Finish:
        """Begin with a batch of windows, (height, width, 3) each, all of one shape.

        Raises OutOfMemory, here or in what is returned, when the device has too little memory.
        """
        ...
