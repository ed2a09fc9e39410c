"""Enlarges images by bicubic interpolation, for comparison with what a network makes."""

from collections.abc import Iterator

import numpy as np
from PIL import Image

from upres.worker.samples import Samples

Box = tuple[float, float, float, float]
"""Left, upper, right and lower edge in pixels."""
BAND_ROWS = 1024
"""Number of output rows that are computed at a time, which limits memory."""


def bicubic(pixels: Samples, size: tuple[int, int]) -> Iterator[Samples]:
    """Enlarge an image (height, width, 3 or 4) by Pillow's bicubic interpolation to `size`, and yield bands of rows.

    The pixels may differ by at most 2 of 255 from those of the whole image enlarged at once: Pillow chooses the order
    of its horizontal and vertical pass by the size of a band, and rounds between them.
    """
    if pixels.dtype == np.uint16:
        yield from _deep_bicubic(pixels, size)
        return
    # With the mode RGBA, Pillow would multiply the colours by alpha: rounding makes them wrong where alpha is small.
    mode, given = ("RGBX" if pixels.shape[2] == 4 else "RGB"), (pixels.shape[1], pixels.shape[0])
    image = Image.frombuffer(mode, given, np.ascontiguousarray(pixels), "raw", mode, 0, 1)
    for band, box in _bands(given, size):
        # With `box`, the filter also reads pixels outside the band, so that there are no seams between bands.
        yield np.asarray(image.resize(band, Image.Resampling.BICUBIC, box=box))


def _bands(given: tuple[int, int], size: tuple[int, int]) -> Iterator[tuple[tuple[int, int], Box]]:
    """Yield (width, height) of each band of an image of `size`, and the box of the given image that it shows."""
    for top in range(0, size[1], BAND_ROWS):
        bottom = min(top + BAND_ROWS, size[1])
        yield (size[0], bottom - top), (0, top * given[1] / size[1], given[0], bottom * given[1] / size[1])


def _deep_bicubic(pixels: Samples, size: tuple[int, int]) -> Iterator[Samples]:
    """Enlarge an image of 16 bits as `bicubic` does."""
    planes = [Image.fromarray(pixels[..., channel].astype(np.float32)) for channel in range(pixels.shape[2])]
    for rows, box in _bands((pixels.shape[1], len(pixels)), size):
        bands = [np.asarray(plane.resize(rows, Image.Resampling.BICUBIC, box=box)) for plane in planes]
        yield np.dstack([np.rint(band).clip(0, 65535).astype(np.uint16) for band in bands])
