"""Colours and alpha: the network enlarges alpha as a gray image, so that it fits the colours."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from upres.worker.engine.depth import refined
from upres.worker.samples import Samples


def split(window: Samples, factor: int) -> list[Samples]:
    """Return the images that a network enlarges for a window (height, width, 3 or 4): RGB, and alpha as a gray image.

    Alpha that has one value everywhere needs no network. At factor 1 alpha stays as it is: noise and the traces of JPEG
    are in colours.
    """
    colours, alpha = window[..., :3], window[..., 3:]
    if factor == 1 or not alpha.size or (alpha == alpha[0, 0]).all():
        return [colours]
    return [colours, np.repeat(alpha, 3, axis=2)]


def joined(enlarged: Sequence[npt.NDArray[np.uint8]], window: Samples, factor: int) -> Samples:
    """Return the enlarged window from what a network made of `split`, with the channels and the depth of `window`."""
    colours, *gray = (refined(*pair, factor) for pair in zip(enlarged, split(window, factor), strict=True))
    if window.shape[2] == 3:
        return colours
    given = window[..., 3]
    made = np.empty((*colours.shape[:2], 4), colours.dtype)
    made[..., :3] = colours
    if gray:
        made[..., 3] = limited(gray[0][..., 1], given, factor)
    else:
        made[..., 3] = given if factor == 1 else given[0, 0]
    return made


def limited(enlarged: Samples, alpha: Samples, factor: int) -> Samples:
    """Return enlarged alpha, (height·factor, width·factor), within the values of its surroundings.

    Each value is at least the smallest and at most the largest of the 2 × 2 pixels in the input whose centres are
    around it. So opaque areas stay opaque, invisible ones invisible, and there are no rings beside an edge. The factor
    is above 1.
    """
    least, most = (_pairs(_pairs(alpha, pick, factor).T, pick, factor).T for pick in (np.minimum, np.maximum))
    return np.clip(enlarged, least, most)


def _pairs(values: Samples, pick: np.ufunc, factor: int) -> Samples:
    """Enlarge (rows, columns) to (rows·factor, columns): for each row, the smaller or larger of the two beside it."""
    padded = np.pad(values, ((1, 1), (0, 0)), mode="edge")
    beside: Samples = pick(padded[:-1], padded[1:]).repeat(factor, axis=0)
    return beside[factor // 2 : factor // 2 + len(values) * factor]
