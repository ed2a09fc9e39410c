"""The segments of a JPEG file before its first scan (ITU-T T.81, Annex B). Pure: bytes in, values out."""

import struct
from dataclasses import dataclass

from upres.core.errors import TruncatedImage

SOS = 0xDA
HIGHEST = 63
"""Number of the highest frequency of a block."""
WITHOUT_LENGTH = {0x00, 0x01, *range(0xD0, 0xD9)}
"""Markers that no segment follows."""
FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
"""Markers that begin a frame: SOF0 to SOF15, and SOF55 of JPEG-LS (ITU-T T.87)."""


@dataclass(frozen=True)
class Frame:
    """The header of a frame, and what stands before it."""

    marker: int
    """Second byte of the marker: 0xC0 baseline, 0xC3 lossless, 0xF7 JPEG-LS, …"""
    bits: int
    """Bits per sample."""
    width: int
    height: int
    """In rows; 0 if the file tells it after the first scan only."""
    components: int
    icc: bytes | None
    """ICC profile, put together from its segments (ICC.1, Annex B.4); None also when one of them is missing."""
    exif: bytes | None


def frame(data: bytes) -> Frame:
    """Find the frame of a JPEG file. Raises TruncatedImage when there is none."""
    exif: bytes | None = None
    profile: dict[int, bytes] = {}
    parts = 0
    start = 2
    while start + 4 <= len(data):
        marker, length = data[start + 1], int.from_bytes(data[start + 2 : start + 4], "big")
        if data[start] != 0xFF or marker == 0xFF:  # fill bytes may stand before a marker, and libjpeg skips others
            start += 1
            continue
        if marker in WITHOUT_LENGTH:
            start += 2
            continue
        if marker == SOS:
            break
        content = data[start + 4 : start + 2 + length]
        if marker in FRAMES and len(content) >= 6:
            bits, height, width, components = struct.unpack(">BHHB", content[:6])
            icc = b"".join(profile[n] for n in sorted(profile)) if profile and len(profile) == parts else None
            return Frame(marker, bits, width, height, components, icc, exif)
        if marker == 0xE1 and content.startswith(b"Exif\0\0"):
            exif = exif or content
        if marker == 0xE2 and content.startswith(b"ICC_PROFILE\0") and len(content) > 14:
            parts = content[13]
            profile[content[12]] = content[14:]
        start += 2 + length
    raise TruncatedImage("The JPEG file is incomplete or damaged (it has no frame); send it again, complete.")


def is_only_coarse(data: bytes) -> bool:
    """Return whether a cut progressive file lacks frequencies of the brightness (Annex G.1.1): it can only be blurred.

    Such a file sends coarse parts of the image first. The scan with the highest frequency has to be complete, which is
    so when another one follows. Within scans the bytes of a marker do not occur (Annex B.1.1.5).
    """
    complete = False
    start = data.find(bytes([0xFF, SOS]))
    while start >= 0:
        if complete:
            return False
        count = data[start + 4] if start + 4 < len(data) else 0
        last = start + 6 + 2 * count  # Se, after the components and Ss
        complete = last < len(data) and data[last] == HIGHEST and data[start + 5] in (0, 1)
        start = data.find(bytes([0xFF, SOS]), start + 2)
    return True
