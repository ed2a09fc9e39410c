"""Reads the size of images in files of boxes (ISO/IEC 14496-12): AVIF, HEIF, JPEG XL and JPEG 2000; also without boxes.

The functions raise ValueError, LookupError or struct.error for a damaged file.
"""

import os
import struct
from collections.abc import Iterator
from typing import IO, NamedTuple

Size = tuple[int, int]
"""(width, height) in pixels."""
MAX_META_BYTES = 16 << 20
"""Largest box in bytes that is read as a whole."""
MAX_BOXES = 65536
SIZE_BITS = (9, 13, 18, 30)
"""Numbers of bits of a side in a JPEG XL codestream."""
RATIOS = {1: (1, 1), 2: (12, 10), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}
"""Codes of a JPEG XL codestream for width : height (ISO/IEC 18181-1)."""
UNCROPPED = {b"avif", b"avis"}
"""Kinds of files whose clean aperture (clap) the worker's decoder does not apply."""


class Box(NamedTuple):
    """A box in a file: its type, and where its content lies."""

    kind: bytes
    start: int
    end: int


def boxes(file: IO[bytes], start: int, end: int) -> Iterator[Box]:
    """Yield the boxes between two places of a file."""
    for _ in range(MAX_BOXES):
        if end - start < 8:
            return
        file.seek(start)
        length, kind = struct.unpack(">I4s", file.read(8))
        header = 8
        if length == 1:
            [length], header = struct.unpack(">Q", file.read(8)), 16
        length = length or end - start  # 0: up to the end
        if length < header:
            raise ValueError("a box is shorter than its head")
        yield Box(kind, start + header, min(start + length, end))
        start += length


def heif(file: IO[bytes]) -> Size:
    """The size of the primary item of an AVIF or HEIF file, cropped and turned by its properties, and not by EXIF."""
    top = {box.kind: box for box in boxes(file, 0, _length(file))}
    meta = top[b"meta"]
    inside = {box.kind: box for box in boxes(file, meta.start + 4, meta.end)}
    primary = _content(file, inside[b"pitm"])
    item = int.from_bytes(primary[4 : 8 if primary[0] else 6], "big")
    parts = {box.kind: box for box in boxes(file, inside[b"iprp"].start, inside[b"iprp"].end)}
    container = parts[b"ipco"]
    properties = list(boxes(file, container.start, container.end))
    mine = [properties[index - 1] for index in _associations(_content(file, parts[b"ipma"]), item) if index]
    brands = _content(file, top[b"ftyp"])
    cropped = not any(brands[at : at + 4] in UNCROPPED for at in range(0, len(brands), 4))
    return _transformed(file, mine, cropped)


def _transformed(file: IO[bytes], properties: list[Box], cropped: bool) -> Size:
    size: Size | None = None
    for box in sorted(properties, key=lambda box: box.kind != b"ispe"):  # the others apply in their order
        data = _content(file, box)
        if box.kind == b"ispe":
            width, height = struct.unpack_from(">II", data, 4)
            size = width, height
        elif size and box.kind == b"clap" and cropped:
            across, per_x, down, per_y = struct.unpack_from(">IIII", data)
            size = min(size[0], round(across / max(1, per_x))), min(size[1], round(down / max(1, per_y)))
        elif size and box.kind == b"irot" and data[0] & 1:
            size = size[1], size[0]
    if size is None:
        raise ValueError("the primary item has no size")
    return size


def _associations(data: bytes, item: int) -> list[int]:
    """The numbers of the properties of an item, beginning with 1, in their order (box ipma)."""
    wide_ids, wide_indices = data[0] > 0, data[3] & 1
    [entries] = struct.unpack_from(">I", data, 4)
    at = 8
    for _ in range(min(entries, MAX_BOXES)):
        layout = ">IB" if wide_ids else ">HB"
        found, count = struct.unpack_from(layout, data, at)
        at += struct.calcsize(layout)
        numbers = struct.unpack_from(f">{count}{'H' if wide_indices else 'B'}", data, at)
        at += count * (2 if wide_indices else 1)
        if found == item:
            return [number & (0x7FFF if wide_indices else 0x7F) for number in numbers]
    raise LookupError("the primary item has no properties")


def jpeg_2000(file: IO[bytes]) -> Size:
    """The size in the SIZ marker of the codestream: the image's area in the reference grid."""
    start = 0
    if file.read(4) != b"\xff\x4f\xff\x51":
        start = _first(file, b"jp2c").start
    file.seek(start)
    if file.read(4) != b"\xff\x4f\xff\x51":
        raise ValueError("no codestream")
    right, bottom, left, top = struct.unpack(">IIII", file.read(20)[4:])
    return right - left, bottom - top


def jpeg_xl(file: IO[bytes]) -> Size:
    """The size in the codestream, turned as that says."""
    if (head := file.read(64))[:2] != b"\xff\x0a":
        box = _first(file, b"jxlc", b"jxlp")
        file.seek(box.start + (4 if box.kind == b"jxlp" else 0))  # a part of a codestream has a number
        head = file.read(64)
    if head[:2] != b"\xff\x0a":
        raise ValueError("no codestream")
    bits = _Bits(head[2:])
    small = bits.take(1)
    height = _side(bits, small)
    ratio = bits.take(3)
    width = height * RATIOS[ratio][0] // RATIOS[ratio][1] if ratio else _side(bits, small)
    is_default, has_fields = bits.take(1), bits.take(1)
    orientation = bits.take(3) + 1 if not is_default and has_fields else 1
    return (height, width) if orientation >= 5 else (width, height)


def _side(bits: "_Bits", small: int) -> int:
    return (bits.take(5) + 1) * 8 if small else bits.take(SIZE_BITS[bits.take(2)]) + 1


class _Bits:
    """Reads numbers of some bits, the lowest bit first."""

    def __init__(self, data: bytes) -> None:
        self._left = int.from_bytes(data, "little")

    def take(self, count: int) -> int:
        taken = self._left & ((1 << count) - 1)
        self._left >>= count
        return taken


def _first(file: IO[bytes], *kinds: bytes) -> Box:
    """The first box of one of these kinds. Raises LookupError when there is none."""
    for box in boxes(file, 0, _length(file)):
        if box.kind in kinds:
            return box
    raise LookupError("no codestream")


def _content(file: IO[bytes], box: Box) -> bytes:
    """The content of a box. Raises ValueError when it is too large to be what it says."""
    if box.end - box.start > MAX_META_BYTES:
        raise ValueError("a box is too large")
    file.seek(box.start)
    return file.read(box.end - box.start)


def _length(file: IO[bytes]) -> int:
    return file.seek(0, os.SEEK_END)
