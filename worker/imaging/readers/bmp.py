"""Reads BMP by Pillow. Bit fields that Pillow does not know, such as 4-4-4-4 and 10-10-10, are refused by name."""

import struct

from upres.core.errors import UnsupportedImage
from upres.worker.imaging.raster import Raster
from upres.worker.imaging.readers import pillow

UNKNOWN = ("Unsupported BMP",)
"""Beginnings of Pillow's messages about a sound file that it cannot read."""


def read(data: bytes, max_pixels: int) -> Raster:
    """Read a BMP file. Raises TooManyPixels, UnsupportedImage, or an error of DAMAGE."""
    try:
        return pillow.read(data, max_pixels, "BMP", "png")
    except OSError as error:
        if not str(error).startswith(UNKNOWN):
            raise
        bits = struct.unpack_from("<H", data, 28)[0] if len(data) > 30 else 0
        raise UnsupportedImage(
            f"BMP of this kind ({bits} bits per pixel) is not supported; save it with 24 bits per pixel, or as PNG."
        ) from error
