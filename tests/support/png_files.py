"""Writes PNG files chunk by chunk, also such as no library writes."""

import struct
import zlib

import numpy as np
import numpy.typing as npt

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(name: bytes, content: bytes, crc: int | None = None) -> bytes:
    """A chunk; with another checksum than its own, if one is given."""
    right = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", right if crc is None else crc)


def png(rows: list[bytes], width: int, bits: int, colour_type: int, *extra: bytes) -> bytes:
    """A PNG file of packed rows, with more chunks before the pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, len(rows), bits, colour_type, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"".join([SIGNATURE, header, *extra, pixels, chunk(b"IEND", b"")])


def of_samples(samples: npt.NDArray[np.generic], *extra: bytes) -> bytes:
    """A PNG file of samples with 8 or 16 bits, (height, width, channels)."""
    height, width, channels = samples.shape
    rows = [row.astype(samples.dtype.newbyteorder(">")).tobytes() for row in samples]
    assert height
    return png(rows, width, samples.itemsize * 8, {1: 0, 2: 4, 3: 2, 4: 6}[channels], *extra)


def packed(levels: npt.NDArray[np.uint8], bits: int) -> list[bytes]:
    """Rows of gray levels or palette numbers, with fewer than 8 bits each."""
    shifted = ((levels[..., None] >> np.arange(bits - 1, -1, -1)) & 1).astype(np.uint8)
    return [np.packbits(row.reshape(-1)).tobytes() for row in shifted]
