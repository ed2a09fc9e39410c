"""Colours and alpha: the network enlarges alpha as a gray image, so that it fits the colours."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from upres.worker.engine.depth import refined
from upres.worker.samples import Samples


def split(window: Samples) -> list[Samples]:
    """Return the images that a network enlarges for a window (height, width, 3 or 4): RGB, and alpha as a gray image.

    Alpha that has one value everywhere needs no network.
    """
    colours, alpha = window[..., :3], window[..., 3:]
    if not alpha.size or (alpha == alpha[0, 0]).all():
        return [colours]
    return [colours, np.repeat(alpha, 3, axis=2)]


def joined(enlarged: Sequence[npt.NDArray[np.uint8]], window: Samples, factor: int) -> Samples:
    """Return the enlarged window from what a network made of `split`, with the channels and the depth of `window`."""
    colours, *gray = (refined(*pair, factor) for pair in zip(enlarged, split(window), strict=True))
    if window.shape[2] == 3:
        return colours
    given = window[..., 3]
    made = np.empty((*colours.shape[:2], 4), colours.dtype)
    made[..., :3], made[..., 3] = colours, limited(gray[0][..., 1], given, factor) if gray else given[0, 0]
    return made


def limited(enlarged: Samples, alpha: Samples, factor: int) -> Samples:
    """Return enlarged alpha, (height·factor, width·factor), within the values of its surroundings.

    Each value is at least the smallest and at most the largest of the 3 × 3 pixels around it in the input. So opaque
    areas stay opaque, invisible ones invisible, and edges have no rings.
    """
    least, most = (
        _around(alpha, pick).repeat(factor, axis=0).repeat(factor, axis=1) for pick in (np.minimum, np.maximum)
    )
    return np.clip(enlarged, least, most)


def _around(alpha: Samples, pick: np.ufunc) -> Samples:
    """Return the smallest or largest value of each pixel and its eight neighbours."""
    padded = np.pad(alpha, 1, mode="edge")
    rows = pick(pick(padded[:-2], padded[1:-1]), padded[2:])
    found: Samples = pick(pick(rows[:, :-2], rows[:, 1:-1]), rows[:, 2:])
    return found
