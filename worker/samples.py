"""Samples of pixels: 8 or 16 bits, from 0 to 255 or from 0 to 65,535; and their conversion."""

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
    made = np.empty(samples.shape, np.uint8)
    step = max(1, BAND // max(1, samples[:1].size))
    for top in range(0, len(samples), step):  # what a band needs beside its result is small
        made[top : top + step] = (samples[top : top + step].astype(np.uint32) + LEVEL // 2) // LEVEL
    return made


def sixteen_bits(samples: Samples) -> npt.NDArray[np.uint16]:
    """Convert samples to 16 bits."""
    if samples.dtype == np.uint16:
        return samples.view(np.uint16)
    return samples.astype(np.uint16) * np.uint16(LEVEL)
