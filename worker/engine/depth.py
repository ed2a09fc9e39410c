"""Enlarges samples of 16 bits with a network that computes 8 bits."""

import numpy as np
import numpy.typing as npt
from PIL import Image

from upres.worker.samples import LEVEL, Samples, eight_bits


def refined(enlarged: Samples, given: Samples, factor: int) -> Samples:
    """Return what the network made of `eight_bits(given)`, (height·factor, width·factor, channels), as deep as `given`.

    With 8 bits that is the same. With 16, the network's change, relative to each pixel, is added to the samples of 16
    bits. It is known to half a grey level; within that, the value nearest to bicubic interpolation is taken. So
    gradients stay smooth, and no sample differs by more than a grey level from what the network made.
    """
    if given.dtype == np.uint8:
        return enlarged
    out = np.empty(enlarged.shape, np.uint16)
    before = eight_bits(given)
    for channel in range(enlarged.shape[2]):
        # The samples that `before` rounded away, from -128 to 128, come back.
        lost = given[..., channel].astype(np.int32) - before[..., channel].astype(np.int32) * LEVEL
        middle = enlarged[..., channel].astype(np.int32) * LEVEL + lost.repeat(factor, 0).repeat(factor, 1)
        smooth = np.rint(bicubic(given[..., channel], factor)).astype(np.int32)
        value = np.clip(smooth, middle - LEVEL // 2, middle + LEVEL // 2)
        out[..., channel] = np.clip(value, 0, 65535)
    return out


def bicubic(plane: Samples, factor: int) -> npt.NDArray[np.float32]:
    """Enlarge (height, width) by Pillow's bicubic interpolation, without rounding."""
    size = plane.shape[1] * factor, plane.shape[0] * factor
    return np.asarray(Image.fromarray(plane.astype(np.float32)).resize(size, Image.Resampling.BICUBIC))
