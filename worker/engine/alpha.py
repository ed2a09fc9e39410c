"""Enlarges alpha with the network, as a gray image, so that it fits the colours that the same network enlarges."""

import numpy as np

from upres.worker.samples import Samples


def as_gray(alpha: Samples) -> Samples:
    """Return alpha, (height, width), as a gray image, (height, width, 3), for a network."""
    return np.repeat(alpha[..., None], 3, axis=2)


def constant(alpha: Samples) -> bool:
    """Return whether alpha has one value everywhere; then it needs no network."""
    return bool((alpha == alpha[0, 0]).all())


def limited(enlarged: Samples, alpha: Samples, factor: int) -> Samples:
    """Return alpha, (height·factor, width·factor), of an enlarged gray image, within the values of its surroundings.

    Each value is at least the smallest and at most the largest of the 3 × 3 pixels around it in the input. So opaque
    areas stay opaque, invisible ones invisible, and edges have no rings.
    """
    least, most = (
        _around(alpha, pick).repeat(factor, axis=0).repeat(factor, axis=1) for pick in (np.minimum, np.maximum)
    )
    return np.clip(enlarged[..., 1], least, most)


def _around(alpha: Samples, pick: np.ufunc) -> Samples:
    """Return the smallest or largest value of each pixel and its eight neighbours."""
    padded = np.pad(alpha, 1, mode="edge")
    rows = pick(pick(padded[:-2], padded[1:-1]), padded[2:])
    found: Samples = pick(pick(rows[:, :-2], rows[:, 1:-1]), rows[:, 2:])
    return found
