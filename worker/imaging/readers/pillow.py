"""What Pillow reads rightly: its images become samples of 8 bits."""

import io
import struct
import zlib
from collections.abc import Iterator
from typing import TypeVar, cast

import numpy as np
from PIL import Image

from upres.core.errors import TruncatedImage, UnsupportedImage
from upres.core.formats import check_pixels
from upres.core.schema import OutputFormat
from upres.worker.imaging.raster import Raster
from upres.worker.imaging.readers.samples import channels_last, upright
from upres.worker.imaging.readers.to_srgb import rgb_of_cmyk
from upres.worker.samples import Samples

MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"}
ORIENTATION = 0x0112
"""EXIF's number of the orientation."""

DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    struct.error,
    zlib.error,
    RuntimeError,
)
"""Errors that Pillow's decoders raise on damaged files."""


def opened(data: bytes, *kinds: str) -> Image.Image:
    """Read the header of a file of one of these kinds, by Pillow's names. Raises one of DAMAGE."""
    return Image.open(io.BytesIO(data), formats=kinds)


Frame = TypeVar("Frame")


def until_damage(frames: Iterator[Frame]) -> tuple[list[Frame], bool]:
    """Return the frames before the first one that is damaged, and whether none is."""
    sound: list[Frame] = []
    try:
        sound.extend(frames)
    except (*DAMAGE, TruncatedImage):
        return sound, False
    return sound, True


def read(data: bytes, max_pixels: int, kind: str, format: OutputFormat) -> Raster:
    """Read a file of this kind, by Pillow's name. Raises TooManyPixels, UnsupportedImage, or one of DAMAGE."""
    with opened(data, kind) as image:
        check_pixels(*image.size, max_pixels)
        image.load()
        return raster(image, format)


def raster(image: Image.Image, format: OutputFormat) -> Raster:
    """Convert a loaded image, and turn it as its EXIF orientation says. Raises UnsupportedImage."""
    icc = cast("bytes | None", image.info.get("icc_profile"))
    turned = orientation(image.info.get("exif"))
    notices: tuple[str, ...] = ()
    if image.mode == "CMYK":
        (image, notices), icc = rgb_of_cmyk(image, icc), None
    return Raster(upright(samples(image), turned), format, icc, notices)


def samples(image: Image.Image) -> Samples:
    """Return the samples of a loaded image. Raises UnsupportedImage for those that do not have 8 bits."""
    if image.mode not in MODES:
        raise UnsupportedImage(f"The image has pixels of kind {image.mode}; save it with 8 or 16 bits per channel.")
    colours = "L" if image.mode in ("1", "L", "LA") else "RGB"
    return channels_last(np.asarray(image.convert(f"{colours}A" if image.has_transparency_data else colours)))


def orientation(exif: bytes | None) -> int:
    """Return the orientation that EXIF data states, or 1. Damaged data is ignored, and XMP, as viewers do."""
    if not exif:
        return 1
    tags = Image.Exif()
    try:
        tags.load(exif)
        stated = tags.get(ORIENTATION, 1)
    except Exception:  # Pillow raises many types for damaged EXIF data; the pixels are intact
        return 1
    return stated if stated in range(1, 9) else 1
