"""Fills the colours of invisible pixels, so that they do not change the visible ones beside them when it is enlarged.

A file may have any colour where alpha is 0, most often black. A network or a filter would mix it into the edge.
"""

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from upres.worker.samples import Samples

Depth = TypeVar("Depth", np.uint8, np.uint16)


def filled(colours: npt.NDArray[Depth], alpha: Samples) -> npt.NDArray[Depth]:
    """Replace the colours where alpha is 0 by those of visible pixels nearby, and change nothing elsewhere.

    `colours` is (height, width, channels), and `alpha` (height, width). The method is push-pull (Gortler et al. 1996,
    section 3.3.1): an invisible pixel gets the mean of the smallest block around it that has a visible one, with sides
    of 2, 4, 8, … pixels.
    """
    seen = alpha > 0
    if seen.all() or not seen.any():
        return colours
    means, known = _halved(colours, seen)
    coarse = means if known.all() else filled(means, known.astype(np.uint8))
    height, width = seen.shape
    near = coarse.repeat(2, axis=0)[:height].repeat(2, axis=1)[:, :width]
    np.copyto(near, colours, where=seen[..., None])
    return near


def _halved(
    colours: npt.NDArray[Depth], seen: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[Depth], npt.NDArray[np.bool_]]:
    """Return the means of the visible pixels of each block of 2 × 2, and whether it has any."""
    height, width, channels = colours.shape
    half: tuple[int, int] = (height + 1) // 2, (width + 1) // 2
    sums, counts = np.zeros((*half, channels), np.uint32), np.zeros(half, np.uint32)
    for top in (0, 1):
        for left in (0, 1):
            part = seen[top::2, left::2]
            place = slice(part.shape[0]), slice(part.shape[1])
            counts[place] += part
            sums[place] += colours[top::2, left::2] * part[..., None]
    each = np.maximum(counts, 1)[..., None]
    return ((sums + each // 2) // each).astype(colours.dtype), counts > 0
