"""Reads the first frame of GIF by Pillow. Around a frame that is smaller than its canvas, the image is transparent."""

import numpy as np
from PIL.ImageFile import ImageFile

from upres.core.formats import check_pixels
from upres.worker.imaging.raster import Raster
from upres.worker.imaging.readers import pillow


def read(data: bytes, max_pixels: int) -> Raster:
    """Read a GIF file. Raises TooManyPixels, UnsupportedImage, or an error of DAMAGE."""
    with pillow.opened(data, "GIF") as image:
        check_pixels(*image.size, max_pixels)
        assert isinstance(image, ImageFile)
        left, top, right, bottom = image.tile[0].extents or (0, 0, *image.size)
        image.load()
        samples = pillow.samples(image)
    height, width = samples.shape[:2]
    if (left, top, right, bottom) == (0, 0, width, height):
        return Raster(samples, "png")
    result = np.zeros((height, width, 2 if samples.shape[2] < 3 else 4), np.uint8)
    frame = samples[top:bottom, left:right]
    result[top:bottom, left:right, -1] = 255
    result[top:bottom, left:right, : frame.shape[2]] = frame
    return Raster(result, "png")
