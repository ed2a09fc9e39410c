"""Reads JPEG XL by libjxl (imagecodecs).

kept       16 bits, floating point from 0 to 1 as 16 bits, alpha, grayscale
applied    orientation of the codestream, by libjxl; one in EXIF is ignored, as the standard wants it; premultiplied
           alpha is divided out; linear light becomes sRGB
changed    animation → first frame, with a notice (images.py). A file that was made of a JPEG file without loss
           becomes that file again, and so keeps its profile
refused    other colours than sRGB, because imagecodecs does not hand on the profile; CMYK and spot colours
"""

from typing import Any

import imagecodecs
import numpy.typing as npt

from upres.core.errors import UnsupportedImage
from upres.core.formats import check_pixels
from upres.worker.imaging.boxes import boxes
from upres.worker.imaging.jxl_header import ALPHA, CONTAINER, DEPTH, LINEAR, SELECTION, SRGB, Header, header
from upres.worker.imaging.raster import Raster
from upres.worker.imaging.readers import jpeg
from upres.worker.imaging.readers.samples import channels_last, full_range, of_floats, straight
from upres.worker.imaging.srgb_curve import srgb_of_linear
from upres.worker.samples import Samples

FROM_JPEG = b"jbrd"
"""The box with what the codestream lacks to restore a JPEG file."""


def read(data: bytes, max_pixels: int) -> Raster:
    """Read a JPEG XL file. Raises TooManyPixels, TruncatedImage, UnsupportedImage, or an error of DAMAGE."""
    head = header(data)
    check_pixels(head.width, head.height, max_pixels)
    if data.startswith(CONTAINER) and any(name == FROM_JPEG for name, _, _ in boxes(data)):
        return jpeg.read(bytes(imagecodecs.jpegxl_decode_jpeg(data, numthreads=1)), max_pixels)
    if head.colours not in (SRGB, LINEAR):
        raise UnsupportedImage(f"JPEG XL with colours {head.colours} is not supported; save it in sRGB, or as PNG.")
    if set(head.extra) - {ALPHA, DEPTH, SELECTION}:
        raise UnsupportedImage("JPEG XL with inks (CMYK, spot colours) is not supported; save it as RGB.")
    values = channels_last(imagecodecs.jpegxl_decode(data, index=0, keeporientation=False, numthreads=1))
    samples = _samples(_channels(values, head), head)
    samples = straight(samples) if head.premultiplied else samples
    if head.colours == LINEAR:
        samples = srgb_of_linear(samples, ALPHA in head.extra)
    return Raster(samples, "webp" if head.lossy else "png")


def _channels(values: npt.NDArray[Any], head: Header) -> npt.NDArray[Any]:
    """Return the colours, and alpha if it is there. Raises ValueError when the header describes another image."""
    if sorted(values.shape[:2]) != sorted((head.height, head.width)):
        raise ValueError("the pixels are not those that the header describes")
    colours = 1 if values.shape[2] < 3 else 3
    return values[..., : colours + 1] if ALPHA in head.extra else values[..., :colours]


def _samples(values: npt.NDArray[Any], head: Header) -> Samples:
    if values.dtype.kind == "f":
        return of_floats(values.clip(0, 1) if head.lossy else values)  # compression makes a few slightly larger
    return full_range(values, head.bits)
