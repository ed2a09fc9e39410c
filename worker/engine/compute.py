"""The interface of the libraries that run a model's networks on a device: uint8 windows in, uint8 windows out."""

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from upres.core.errors import OutputNotFinite

Pixels = npt.NDArray[np.uint8]
Finish = Callable[[], Pixels]
"""Waits for a started batch and returns its windows, (count, height·factor, width·factor, 3).

May raise OutOfMemory or OutputNotFinite."""


class OutOfMemory(Exception):
    """The device has too little memory for a batch; a smaller one may fit."""


def check_finite(total: float) -> None:
    """Raise OutputNotFinite if the sum of a network's output numbers is not finite: then one of them is not, either.

    The device computes the sum before it converts the numbers to bytes, which could not show it any more.
    """
    if not math.isfinite(total):
        raise OutputNotFinite(
            "The model's output for this image is no image (NaN or infinite numbers); use another model or version."
        )


class Compute(Protocol):
    """The networks of one model on one device. Not safe from several threads: only the device thread calls it."""

    precision: str
    """Precision of the computation, such as `bfloat16`, for logs and for the key of the tile size."""
    batch_pixels: int
    """Maximum number of input pixels in a batch: a larger one is no faster per pixel. See limits.py."""
    batches_ahead: int
    """Number of batches that may be started and not finished: 1 if `start` itself computes the batch."""
    warm_up_side: int
    """Side in pixels of the window that the warm-up computes."""
    seconds: float | None
    """Seconds that the device has computed so far, by its own clock; None when only the host's clock can tell."""

    def start(self, factor: int, windows: Sequence[Pixels]) -> Finish:
        """Start a batch of RGB windows, (height, width, 3) each, all of one shape.

        Raises OutOfMemory when the device has too little memory, OutputNotFinite when the output for one of the windows
        has NaN or infinite numbers; the returned function may raise both as well.
        """
        ...

    def probe(self) -> None:
        """Use the device, and wait until it has answered. Raises any error when the device is lost."""
        ...

    def largest_batch(self, factor: int) -> int | None:
        """Return how many input pixels of a network fit into the free memory at once, by the batches so far.

        None when the device has no memory of its own.
        """
        ...
