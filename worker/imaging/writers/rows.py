"""The rows of a result as its file has them: gray images get one channel again."""

import numpy as np
from PIL import Image

from upres.worker.imaging.picture import Picture
from upres.worker.samples import Samples

LUMA_WEIGHTS = np.array([299, 587, 114], np.uint32)


def as_in_file(band: Samples, picture: Picture) -> Samples:
    """Convert a band of RGB, and alpha, to the channels of the result's file: (rows, width, channels)."""
    if not picture.gray:
        return band
    return np.concatenate([_luma(band)[..., None]] * picture.channels + [band[..., 3:]], axis=2)


def _luma(band: Samples) -> Samples:
    """Convert RGB to the luma of ITU-R BT.601: (rows, width)."""
    if band.dtype == np.uint8:
        return np.asarray(Image.fromarray(band[..., :3]).convert("L"))
    luma = np.empty(band.shape[:2], np.uint16)
    for row, pixels in zip(luma, band, strict=True):  # row by row, because it takes 20 bytes a pixel
        row[:] = (pixels[:, :3].astype(np.uint32) @ LUMA_WEIGHTS + 500) // 1000
    return luma
