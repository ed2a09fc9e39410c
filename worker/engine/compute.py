"""The interface of the libraries that run a model's networks on a device: uint8 windows in, uint8 windows out."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Finish = Callable[[], Pixels]
"""Waits for a started batch and returns its windows, (count, height·factor, width·factor, 3). May raise OutOfMemory."""


class OutOfMemory(Exception):
    """The device has too little memory for a batch; a smaller one may fit."""


class Compute(Protocol):
    """The networks of one model on one device. Not safe from several threads: only the device thread calls it."""

    precision: str
    """Precision of the computation, such as `bfloat16`, for logs and for the key of the tile size."""
    batch_pixels: int
    """Maximum number of input pixels in a batch: a larger one is no faster per pixel."""
    batches_ahead: int
    """Number of batches that may be started and not finished: 1 if `start` itself computes the batch."""
    warm_up_side: int
    """Side in pixels of the window that the warm-up computes."""

    def start(self, factor: int, windows: Sequence[Pixels]) -> Finish:
        """Start a batch of RGB windows, (height, width, 3) each, all of one shape.

        Raises OutOfMemory when the device has too little memory; the returned function may raise it as well.
        """
        ...
