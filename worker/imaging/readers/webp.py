"""Reads WebP by Pillow. Around the first frame of an animation that is smaller than its canvas, all is transparent.

Pillow makes it black when the file says that no frame has an alpha channel, so animations are read as if one had.
"""

import struct
from dataclasses import replace

from upres.worker.imaging.raster import Raster
from upres.worker.imaging.readers import pillow

FLAGS = 20
"""Place of the flags of an extended file (RFC 9649, section 2.7)."""
ANIMATION, ALPHA = 0x02, 0x10


def read(data: bytes, max_pixels: int) -> Raster:
    """Read a WebP file. Raises TooManyPixels or an error of DAMAGE."""
    return replace(_first_frame(data, max_pixels), lossless=_is_lossless(data))


def _first_frame(data: bytes, max_pixels: int) -> Raster:
    if data[12:16] != b"VP8X" or len(data) <= FLAGS or data[FLAGS] & (ANIMATION | ALPHA) != ANIMATION:
        return pillow.read(data, max_pixels, "WEBP", "webp")
    flags = bytes([data[FLAGS] | ALPHA])
    raster = pillow.read(data[:FLAGS] + flags + data[FLAGS + 1 :], max_pixels, "WEBP", "webp")
    opaque = raster.has_alpha and (raster.samples[..., -1] == 255).all()
    return replace(raster, samples=raster.samples[..., :-1]) if opaque else raster


def _is_lossless(data: bytes) -> bool:
    """Return whether the first frame is without loss."""
    at = 12
    while at + 8 <= len(data):
        kind, size = struct.unpack_from("<4sI", data, at)
        if kind in (b"VP8L", b"VP8 "):
            return bool(kind == b"VP8L")
        at += 8 + (16 if kind == b"ANMF" else size + size % 2)  # a frame contains chunks itself
    return False
