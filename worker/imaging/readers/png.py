"""Reads PNG.

kept       16 bits, alpha, grayscale, ICC profile
applied    orientation in eXIf; the colour that tRNS declares transparent becomes an alpha channel
changed    palette → RGB or RGBA; fewer than 8 bits → 8; animation: apng.py
dropped    text and all other ancillary chunks, unread. One with a wrong checksum, or an ICC profile that cannot be
           decompressed, is dropped with a notice
refused    damaged or missing pixels; Apple's variant

Pillow decodes up to 8 bits; libpng (imagecodecs) decodes 16, which Pillow reduces to 8 except in grayscale.
"""

import struct
import zlib

import imagecodecs
import numpy as np

from upres.core.formats import check_pixels
from upres.worker.imaging import colour
from upres.worker.imaging.picture import MAX_ICC_BYTES
from upres.worker.imaging.raster import Raster
from upres.worker.imaging.readers import pillow
from upres.worker.imaging.readers.png_chunks import Png, parsed, size
from upres.worker.imaging.readers.samples import channels_last, keyed, upright
from upres.worker.samples import Samples

GRAY, RGB, PALETTE = 0, 2, 3
"""Colour types that a tRNS chunk may belong to."""


def read(data: bytes, max_pixels: int) -> Raster:
    """Read a PNG file. Raises TooManyPixels, TruncatedImage, UnsupportedImage, or an error of DAMAGE."""
    check_pixels(*size(data), max_pixels)
    png = parsed(data)
    return raster(samples(png), png)


def samples(png: Png) -> Samples:
    """Return the samples as they are stored, with an alpha channel if the file has a transparent colour."""
    return _with_transparency(_sixteen_bits(png) if png.bits == 16 else _eight_bits(png), png)


def raster(samples: Samples, png: Png) -> Raster:
    """Return samples upright, with what the file says about them."""
    icc, notices = _profile(png)
    samples = upright(samples, pillow.orientation(png.ancillary.get(b"eXIf")))
    return Raster(samples, "png", colour.of_png(png.ancillary, icc), (*png.notices, *notices))


def _eight_bits(png: Png) -> Samples:
    with pillow.opened(png.file(b"tRNS") if png.colour_type == PALETTE else png.file(), "PNG") as image:
        image.load()
        return pillow.samples(image)


def _sixteen_bits(png: Png) -> Samples:
    values: Samples = channels_last(imagecodecs.png_decode(png.file()))
    if values.shape[:2] != (png.height, png.width) or values.dtype != np.uint16:
        raise ValueError("the pixels are not those that the header describes")
    return values


def _with_transparency(samples: Samples, png: Png) -> Samples:
    """Make an alpha channel of the gray level or the colour that tRNS declares transparent (section 11.3.1.1)."""
    channels = {GRAY: 1, RGB: 3}.get(png.colour_type, 0)
    key = png.ancillary.get(b"tRNS", b"")
    if not channels or len(key) != 2 * channels:
        return samples
    most = (1 << png.bits) - 1
    values = [value & most for value in struct.unpack(f">{channels}H", key)]
    return keyed(samples, [value * (255 // most) if png.bits < 8 else value for value in values])


def _profile(png: Png) -> tuple[bytes | None, tuple[str, ...]]:
    """Return the ICC profile, without padding behind it, and a notice when it cannot be read (section 11.3.2.3).

    At most one byte more than MAX_ICC_BYTES is decompressed.
    """
    content = png.ancillary.get(b"iCCP")
    if content is None:
        return None, ()
    _, _, compressed = content.partition(b"\0")
    try:
        profile = zlib.decompressobj().decompress(compressed[1:], MAX_ICC_BYTES + 1)
    except zlib.error:
        profile = b""
    if not profile:
        return None, ("The colour profile of the PNG file is damaged, and was not used.",)
    length = int.from_bytes(profile[:4], "big")
    return profile[:length] if 128 <= length < len(profile) else profile, ()
