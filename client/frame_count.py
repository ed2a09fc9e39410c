"""Counts the frames of an animation, or the pages of a TIFF file, without a decoder. Used for estimates.

What a worker does not enlarge one by one, such as the frames of AVIF, is not counted.
"""

import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import IO

from upres.client.image_size import SUB_IFDS, SUBFILE_TYPE, main_pages
from upres.core.formats import MAX_FRAMES, Holds, holds
from upres.core.schema import WantedFormat

REDUCED_OR_MASK = 0b101
"""Bits of NewSubfileType."""


def count(path: str, wanted: WantedFormat) -> int:
    """Return how many frames or pages of a file a result of this format will have. Raises OSError.

    At most MAX_FRAMES + 1 are looked at. A damaged file has those before the damage, or one.
    """
    with open(path, "rb") as file:
        frames = _frames(file, holds(wanted))
        found: list[object] = []
        with suppress(struct.error, LookupError, ValueError):
            found.extend(islice(frames, MAX_FRAMES + 1))
    return max(1, len(found))


def _frames(file: IO[bytes], able: Holds) -> Iterator[object]:
    head = file.read(12)
    if able.frames and head.startswith(b"GIF8"):
        return _gif(file)
    if able.frames and head.startswith(b"RIFF") and head[8:] == b"WEBP":
        return _webp(file)
    if able.frames and head.startswith(b"\x89PNG"):
        return _png(file)
    if able.pages and head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _tiff(file)
    return iter(())


def _gif(file: IO[bytes]) -> Iterator[None]:
    """Yield for each whole frame of a GIF file. Raises IndexError when it is cut."""
    file.seek(10)
    _skip_palette(file, file.read(3)[0])
    while (kind := file.read(1)) in (b"!", b","):
        if kind == b"!":
            file.seek(1, os.SEEK_CUR)
        else:
            _skip_palette(file, file.read(9)[8])
            file.seek(1, os.SEEK_CUR)
        while length := file.read(1)[0]:
            file.seek(length, os.SEEK_CUR)
        if kind == b",":
            yield


def _skip_palette(file: IO[bytes], flags: int) -> None:
    if flags & 0x80:
        file.seek(3 << (flags & 7) + 1, os.SEEK_CUR)


def _webp(file: IO[bytes]) -> Iterator[None]:
    """Yield for each whole frame of a WebP file."""
    size = file.seek(0, os.SEEK_END)
    at = 12
    while file.seek(at) + 8 <= size:
        kind, length = struct.unpack("<4sI", file.read(8))
        at += 8 + length + length % 2
        if kind == b"ANMF" and at <= size:
            yield


def _png(file: IO[bytes]) -> Iterator[None]:
    """Yield as often as a PNG file says that it has frames."""
    file.seek(8)
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind == b"acTL":
            for _ in range(int.from_bytes(file.read(4), "big")):
                yield
        if kind in (b"acTL", b"IDAT"):
            return
        file.seek(length + 4, os.SEEK_CUR)


def _tiff(file: IO[bytes]) -> Iterator[None]:
    """Yield for each page of a TIFF file that is neither a smaller version of another one nor a mask."""
    file.seek(0)
    for number, page in enumerate(main_pages(file)):
        is_other = page.get(SUBFILE_TYPE, (0,))[0] & REDUCED_OR_MASK
        if not is_other or (number == 0 and SUB_IFDS in page):  # the image of a thumbnail may be below it
            yield
