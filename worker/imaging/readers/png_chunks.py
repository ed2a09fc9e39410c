"""The chunks of a PNG file (W3C, Third Edition, section 5). Pure: bytes in, bytes out."""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from isal import isal_zlib

from upres.core.errors import TruncatedImage, UnsupportedImage

SIGNATURE = b"\x89PNG\r\n\x1a\n"
LONGEST = 2**31 - 1
"""Longest chunk in bytes."""
USED = {b"tRNS", b"iCCP", b"eXIf", b"gAMA", b"cHRM", b"sRGB", b"cICP"}
"""Ancillary chunks that say how pixels are shown. Others, such as text and animation, are dropped unread."""
CRITICAL = {b"IHDR", b"PLTE", b"IDAT", b"IEND"}


@dataclass(frozen=True)
class Png:
    """The parts of a PNG file, and its header (section 11.2.1)."""

    width: int
    height: int
    bits: int
    """Bits per sample."""
    colour_type: int
    """0 gray, 2 RGB, 3 palette, 4 gray with alpha, 6 RGB with alpha."""
    critical: tuple[bytes, ...]
    """Complete chunks that the pixels are made of."""
    ancillary: dict[bytes, bytes]
    """Type → data of the first chunk of each type in USED."""
    notices: tuple[str, ...]

    def file(self, *types: bytes) -> bytes:
        """Return a PNG file with the critical chunks, and with the ancillary ones of these types."""
        extra = (chunk(name, self.ancillary[name]) for name in types if name in self.ancillary)
        body = iter(self.critical)
        head = [SIGNATURE]
        for part in body:
            if part[4:8] == b"IDAT":
                return b"".join([*head, *extra, part, *body])
            head.append(part)
        return b"".join(head)


def parsed(data: bytes) -> Png:
    """Take a PNG file apart.

    Raises TruncatedImage when it has no header, or a critical chunk is cut or has a wrong checksum; UnsupportedImage
    for Apple's variant of PNG.
    """
    critical: list[bytes] = []
    ancillary: dict[bytes, bytes] = {}
    broken: list[str] = []
    for name, start, end in chunks(data):
        if name[0] & 0x20 == 0:  # an unknown critical one, too: decoders refuse it
            if name != b"IEND" and not is_sound(data, start, end):
                raise TruncatedImage(f"The PNG file is incomplete or damaged (its {name.decode()}); send it again.")
            critical.append(data[start:end])
        elif name in USED and name not in ancillary:
            if is_sound(data, start, end):
                ancillary[name] = data[start + 8 : end - 4]
            else:
                broken.append(name.decode())
    if not critical:
        raise _no_header()
    bits, colour_type = struct.unpack(">BB", critical[0][16:18])
    notices = tuple(f"The {name} chunk of the PNG file is damaged, and was not used." for name in sorted(set(broken)))
    return Png(*size(data), bits, colour_type, tuple(critical), ancillary, notices)


def size(data: bytes) -> tuple[int, int]:
    """Return the width and the height that the header states. Raises TruncatedImage, UnsupportedImage as `parsed`."""
    if data[12:16] == b"CgBI":
        raise UnsupportedImage("This PNG file is in Apple's own variant (CgBI) of apps; send a common PNG file.")
    if data[8:16] != b"\0\0\0\rIHDR" or len(data) < 33:
        raise _no_header()
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def _no_header() -> TruncatedImage:
    return TruncatedImage("The PNG file is incomplete or damaged (it has no header); send it again, complete.")


def chunk(name: bytes, content: bytes) -> bytes:
    """Return a complete chunk: length, type, data and checksum (section 5.3)."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(content, zlib.crc32(name)))


def is_sound(data: bytes, start: int, end: int) -> bool:
    """Return whether a chunk has the checksum that it states."""
    return isal_zlib.crc32(memoryview(data)[start + 4 : end - 4]) == int.from_bytes(data[end - 4 : end], "big")


def chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield (type, start, end) of each chunk up to IEND. A critical one at the end of the data may be cut."""
    start = len(SIGNATURE)
    while start + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, start)
        end = start + 12 + length
        if length > LONGEST or not name.isalpha():
            raise TruncatedImage("The PNG file is damaged (there is no chunk where one should be); send it again.")
        if end <= len(data) or name in CRITICAL:
            yield name, start, min(end, len(data))
        start = len(data) if name == b"IEND" else end
