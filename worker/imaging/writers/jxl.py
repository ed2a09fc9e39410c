"""Writes JPEG XL with 8 or 16 bits by libjxl (imagecodecs).

kept       gray, alpha; of metadata EXIF and XMP, in boxes of a container (ISO/IEC 18181-2)
changed    the picture is in sRGB already (result_file.py), because imagecodecs cannot write a profile
left out   IPTC, resolution, texts

imagecodecs says of samples of 16 bits that they are linear light. Without loss that is put right in the header, which
has the curve in a few bits. With loss, libjxl converts the samples by what it says of them, so it gets linear light;
then the header is put right too, so that decoders give samples of sRGB.

Quality and effort were chosen on a photo enlarged by four (benchmarks/RESULTS.md): with effort 5 the mean squared error
is half of that with 4, in a smaller file; without loss, more than 2 takes much longer for files that are hardly
smaller.
"""

import struct
from typing import Any

import imagecodecs

from upres.core import cores
from upres.worker.imaging.boxes import boxes
from upres.worker.imaging.jxl_header import CONTAINER, CURVE_BITS, LEAST_CURVE, SRGB_CURVE, header
from upres.worker.imaging.metadata import Metadata
from upres.worker.imaging.picture import Picture
from upres.worker.imaging.result_file import ResultFile
from upres.worker.imaging.srgb_curve import linear_of_srgb
from upres.worker.samples import Samples

QUALITY = 90
EFFORT, LOSSLESS_EFFORT = 5, 2
"""Of libjxl, 1 to 10."""
CODESTREAM = (b"jxlc", b"jxlp")
"""Types of the boxes with the codestream, as a whole and in parts; a part begins with its number, of 4 bytes."""
BEGINNING = 1 << 13
"""Bytes of a file in which its codestream begins."""


def write(pixels: Samples, picture: Picture, output: ResultFile) -> bytes:
    """Return the file of pixels (height, width, channels)."""
    has_alpha, kept = picture.alpha is not None, picture.metadata
    if output.lossless:
        how: dict[str, Any] = {"lossless": True, "effort": LOSSLESS_EFFORT}
    else:
        how = {"distance": distance(output.quality or QUALITY), "effort": EFFORT}
        pixels = linear_of_srgb(pixels, has_alpha) if output.depth == 16 else pixels
    given = pixels[..., 0] if pixels.shape[2] == 1 else pixels
    photometric = None if pixels.shape[2] < 3 else "rgb"  # else imagecodecs takes narrow images for several
    file = bytearray(
        imagecodecs.jpegxl_encode(
            given, photometric=photometric, usecontainer=bool(kept.exif or kept.xmp), numthreads=cores.count(), **how
        )
    )
    _say_srgb(file)
    return _with_metadata(file, kept) if kept.exif or kept.xmp else bytes(file)


def distance(quality: int) -> float:
    """Return the distance for a quality from 1 to 100, as libjxl's JxlEncoderDistanceFromQuality does."""
    return 0.1 + (100 - quality) * 0.09 if quality >= 30 else 53 / 3000 * quality**2 - 23 / 20 * quality + 25


def _say_srgb(file: bytearray) -> None:
    """Change the curve in the header of a file from linear to sRGB's."""
    beginning = bytes(file[:BEGINNING])
    first = header(beginning).curve_at
    if first is None:
        return
    start = 0
    if beginning.startswith(CONTAINER):
        start = next(start + 4 * (name == b"jxlp") for name, start, _ in boxes(beginning) if name in CODESTREAM)
    for number in range(CURVE_BITS):
        at, bit = divmod(first + number, 8)
        wanted = (SRGB_CURVE - LEAST_CURVE) >> number & 1
        file[start + at] = file[start + at] & ~(1 << bit) | wanted << bit


def _with_metadata(file: bytearray, kept: Metadata) -> bytes:
    """Put the boxes with EXIF and XMP into a container, before the codestream."""
    made = _box(b"Exif", bytes(4) + kept.exif) if kept.exif else b""  # first where the TIFF structure begins
    made += _box(b"xml ", kept.xmp) if kept.xmp else b""
    at = 0
    for name, _, end in boxes(bytes(file[:BEGINNING])):
        if name in CODESTREAM:
            break
        at = end
    file[at:at] = made
    return bytes(file)


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + kind + content
