"""Reads JPEG 2000, in its file format JP2 or as a bare codestream (ISO/IEC 15444-1), by OpenJPEG (imagecodecs).

kept       16 bits (more become 16, fewer than 8 become 8), alpha, grayscale, ICC profile
refused    signed samples, channels of different sizes or depths, palettes, CMYK, sYCC and other colour spaces
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

import imagecodecs

from upres.core.errors import TruncatedImage, UnsupportedImage
from upres.core.formats import check_pixels
from upres.worker.imaging.boxes import boxes
from upres.worker.imaging.raster import Raster
from upres.worker.imaging.readers.samples import channels_last, full_range, straight
from upres.worker.samples import Samples

CODESTREAM = b"\xff\x4f\xff\x51"
"""Its first markers: SOC and SIZ."""
SRGB, GRAY = 16, 17
"""Enumerated colour spaces."""
PREMULTIPLIED = 2
"""Type of an alpha channel that the colours were multiplied with (Annex I.5.3.6)."""


class Header(NamedTuple):
    """The header of the codestream (Annex A.5.1)."""

    width: int
    height: int
    channels: int
    bits: int
    uniform: bool
    """Whether all channels have the size of the image, unsigned samples, and the same depth."""


def read(data: bytes, max_pixels: int) -> Raster:
    """Read a JPEG 2000 file. Raises TooManyPixels, TruncatedImage, UnsupportedImage, or an error of DAMAGE."""
    code = _codestream(data)
    head = _header(code)
    check_pixels(head.width, head.height, max_pixels)
    parts = dict(_parts(data)) if not data.startswith(CODESTREAM) else {}
    icc, premultiplied = _profile(parts.get(b"colr")), _premultiplied(parts.get(b"cdef"))
    if not head.uniform or head.channels > 4 or not 1 <= head.bits <= 16 or b"pclr" in parts:
        raise _unsupported("palettes, signed or subsampled channels, or different depths")
    # Of a whole file it would convert the colours by their profile, which the result keeps, and applies once more.
    values: Samples = channels_last(imagecodecs.jpeg2k_decode(code, numthreads=1))
    if values.shape != (head.height, head.width, head.channels):
        raise ValueError("the pixels are not those that the header describes")
    samples = full_range(values, head.bits)
    return Raster(straight(samples) if premultiplied else samples, "png", icc)


def _unsupported(what: str) -> UnsupportedImage:
    return UnsupportedImage(f"JPEG 2000 with {what} is not supported; save it as gray or RGB, or as PNG.")


def _codestream(data: bytes) -> bytes:
    """Return the pixels of a file, without the boxes around them. Raises TruncatedImage."""
    if data.startswith(CODESTREAM):
        return data
    code = next((data[start:end] for name, start, end in boxes(data) if name == b"jp2c"), b"")
    if not code.startswith(CODESTREAM):
        raise TruncatedImage("The JPEG 2000 file is incomplete (it has no codestream); send it again, complete.")
    return code


def _header(code: bytes) -> Header:
    if len(code) < 42:
        raise TruncatedImage("The JPEG 2000 file is incomplete (it has no header); send it again, complete.")
    right, bottom, left, top = struct.unpack_from(">IIII", code, 8)
    (channels,) = struct.unpack_from(">H", code, 40)
    components = code[42 : 42 + 3 * channels]
    if len(components) < 3 * channels or not channels or right <= left or bottom <= top:
        raise TruncatedImage("The JPEG 2000 file is damaged (its header is not valid); send it again.")
    depth = components[0]
    uniform = depth < 0x80 and components == bytes([depth, 1, 1]) * channels
    return Header(right - left, bottom - top, channels, (depth & 0x7F) + 1, uniform)


def _parts(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield (type, content) of the boxes in the header of JP2 (Annex I.5.3), the first of a type last."""
    for name, start, end in boxes(data):
        if name == b"jp2h":
            header = data[start:end]
            yield from reversed([(kind, header[begin:stop]) for kind, begin, stop in boxes(header)])


def _profile(colours: bytes | None) -> bytes | None:
    """Return the ICC profile in a box that describes colours (Annex I.5.3.3). Raises UnsupportedImage."""
    if not colours:
        return None
    if colours[0] == 2:
        if colours[19:23] not in (b"RGB ", b"GRAY"):
            raise _unsupported("a profile for other colours than RGB and gray")
        return colours[3:]
    space = int.from_bytes(colours[3:7], "big")
    if colours[0] != 1 or space not in (SRGB, GRAY):
        raise _unsupported(f"the colour space {space}")
    return None


def _premultiplied(channels: bytes | None) -> bool:
    """Return whether the colours were multiplied with alpha, by the box that says what channels mean (Annex I.5.3.6).

    Raises UnsupportedImage when the channels have another order than gray or RGB, then alpha.
    """
    found = list(struct.iter_unpack(">HHH", channels[2 : 2 + (len(channels) - 2) // 6 * 6])) if channels else []
    if any(kind == 0 and place != number + 1 for number, kind, place in found):
        raise _unsupported("channels in another order than RGB")
    return any(kind == PREMULTIPLIED for _, kind, _ in found)
