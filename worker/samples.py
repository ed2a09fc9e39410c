"""Samples of pixels: 8 or 16 bits, from 0 to 255 or from 0 to 65,535; and their conversion."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.unsignedinteger[Any]]
"""An array of uint8 or uint16."""
LEVEL = 257
"""One grey level of 8 bits in samples of 16 bits: 255 · 257 = 65,535."""
BAND = 1 << 18
"""Samples that are converted at a time."""


def eight_bits(samples: Samples) -> npt.NDArray[np.uint8]:
    """Convert samples to 8 bits, rounded."""
    if samples.dtype == np.uint8:
        return samples.view(np.uint8)
    return in_bands(samples, np.uint8, lambda band: (band.astype(np.uint32) + LEVEL // 2) // LEVEL).view(np.uint8)


def sixteen_bits(samples: Samples) -> npt.NDArray[np.uint16]:
    """Convert samples to 16 bits."""
    if samples.dtype == np.uint16:
        return samples.view(np.uint16)
    return samples.astype(np.uint16) * np.uint16(LEVEL)


def in_bands(values: npt.NDArray[Any], kind: npt.DTypeLike, convert: Callable[[Any], Any]) -> Samples:
    """Convert some rows at a time, so that what a conversion needs beside its result stays small."""
    result = np.empty(values.shape, kind)
    step = max(1, BAND // max(1, values[:1].size))
    for top in range(0, len(values), step):
        result[top : top + step] = convert(values[top : top + step])
    return result
