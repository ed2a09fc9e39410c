"""Reads from the head of an image file the size that a worker will find: upright, and of the page that is enlarged.

Used for estimates. It needs no decoder, so the client can be installed without one. EXIF turns an image in JPEG, PNG,
WebP and TIFF files; in HEIF and AVIF files only its own properties do (ISO/IEC 23008-12), in JPEG XL the codestream.
"""

import io
import os
import struct
from collections.abc import Callable, Iterator
from typing import IO, Any

from upres.client.image_boxes import heif, jpeg_2000, jpeg_xl
from upres.client.input_files import NAMED
from upres.core.errors import NotAnImage

Size = tuple[int, int]
"""(width, height) in pixels."""
MAX_PAGES = 256
"""Pages of a TIFF file that are looked at."""
MAX_EXIF_BYTES = 1 << 20
END_OF_IMAGE, START_OF_SCAN = 0xD9, 0xDA
"""Markers of JPEG."""
WIDTH, HEIGHT, ORIENTATION, SUBFILE_TYPE, SUB_IFDS = 256, 257, 274, 254, 330
"""Tags of TIFF and EXIF."""
FORMATS = {3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
"""Types of TIFF: SHORT, LONG, IFD, LONG8, IFD8."""


def read_size(path: str) -> Size:
    """Return the size of the image in a file as a job will see it. Raises NotAnImage or OSError."""
    with open(path, "rb") as file:
        head = file.read(16)
        for fits, reader in READERS:
            if fits(head):
                try:
                    file.seek(0)
                    width, height = reader(file)
                except (struct.error, ValueError, LookupError, TypeError):
                    raise NotAnImage("The size of the image cannot be read; the file is damaged.") from None
                if width > 0 and height > 0:
                    return width, height
    raise NotAnImage(f"The size of the image cannot be read; send a {NAMED} file.")


def _png(file: IO[bytes]) -> Size:
    file.seek(16)
    size, orientation = _unpack(file, ">II"), 1
    file.seek(8)
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind == b"eXIf":
            orientation = _exif_orientation(file.read(min(length, MAX_EXIF_BYTES)))
            break
        file.seek(length + 4, os.SEEK_CUR)  # eXIf may come after the pixels
    return _turned(size, orientation)


def _jpeg(file: IO[bytes]) -> Size:
    size, orientation = (0, 0), 0
    for marker, length in _jpeg_segments(file):
        if marker == 0xE1 and not orientation:
            data = file.read(length)
            orientation = _exif_orientation(data[6:]) if data[:6] == b"Exif\0\0" else 0
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a frame header
            _, height, width = _unpack(file, ">BHH")
            size = width, height
    return _turned(size, orientation)


def _jpeg_segments(file: IO[bytes]) -> Iterator[tuple[int, int]]:
    """Yield marker and length in bytes of each segment before the pixels; the file is at its data then."""
    file.seek(2)
    while byte := file.read(1):
        if byte != b"\xff":
            continue  # between segments, where nothing should be
        while byte == b"\xff":
            byte = file.read(1)
        marker = byte[0] if byte else END_OF_IMAGE
        if marker in (END_OF_IMAGE, START_OF_SCAN):
            return
        if marker > 1 and not 0xD0 <= marker <= 0xD8:  # these have no content
            [length] = _unpack(file, ">H")
            start = file.tell()
            yield marker, max(0, length - 2)
            file.seek(start + max(0, length - 2))


def _webp(file: IO[bytes]) -> Size:
    file.seek(12)
    kind = file.read(4)
    if kind == b"VP8 ":
        file.seek(26)
        width, height = _unpack(file, "<HH")
        return width & 0x3FFF, height & 0x3FFF  # the other two bits ask for scaling when it is shown
    if kind == b"VP8L":
        file.seek(21)
        [bits] = _unpack(file, "<I")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    file.seek(20)
    flags, low, high = _unpack(file, "<I3s3s")
    size = int.from_bytes(low, "little") + 1, int.from_bytes(high, "little") + 1
    while flags & 8 and len(head := file.read(8)) == 8:
        name, length = struct.unpack("<4sI", head)
        if name == b"EXIF":
            return _turned(size, _exif_orientation(file.read(min(length, MAX_EXIF_BYTES)).removeprefix(b"Exif\0\0")))
        file.seek(length + length % 2, os.SEEK_CUR)
    return size


def _gif(file: IO[bytes]) -> Size:
    """The canvas; its first frame, if that is larger, enlarges it."""
    file.seek(6)
    width, height, flags = _unpack(file, "<HHBxx")
    file.seek(3 << (flags & 7) + 1 if flags & 0x80 else 0, os.SEEK_CUR)
    while file.read(1) == b"!":  # extensions: a label, then blocks with their lengths, up to an empty one
        file.seek(1, os.SEEK_CUR)
        while length := file.read(1)[0]:
            file.seek(length, os.SEEK_CUR)
    try:
        left, top, frame_width, frame_height = _unpack(file, "<HHHH")
    except struct.error:
        return width, height
    return max(width, left + frame_width), max(height, top + frame_height)


def _bmp(file: IO[bytes]) -> Size:
    file.seek(14)
    [header] = _unpack(file, "<I")
    width, height = _unpack(file, "<HH" if header == 12 else "<ii")  # 12: OS/2 and Windows 2
    return width, abs(height)


def _tiff(file: IO[bytes]) -> Size:
    """The first page that is no thumbnail, among the pages and the pages below them."""
    pages = list(_tiff_pages(file))
    page = next((page for page in pages if not page.get(SUBFILE_TYPE, [0])[0] & 1), pages[0])
    return _turned((page[WIDTH][0], page[HEIGHT][0]), page.get(ORIENTATION, [1])[0])


Tags = dict[int, tuple[int, ...]]


def _tiff_pages(file: IO[bytes]) -> Iterator[Tags]:
    """Yield the tags with whole numbers of each page, and of those below it. Raises struct.error, KeyError."""
    order, large, first = _tiff_start(file)
    waiting, seen = [first], set[int]()
    while waiting and len(seen) < MAX_PAGES:
        place = waiting.pop(0)
        if place and place not in seen:
            seen.add(place)
            tags, following = _tiff_directory(file, place, order, large)
            waiting = [*tags.get(SUB_IFDS, ()), following, *waiting]
            yield tags


def main_pages(file: IO[bytes]) -> Iterator[Tags]:
    """Yield the tags of each page, without those below pages. Raises struct.error, KeyError or ValueError."""
    order, large, place = _tiff_start(file)
    seen = set[int]()
    while place and place not in seen:
        seen.add(place)
        tags, place = _tiff_directory(file, place, order, large)
        yield tags


def _tiff_start(file: IO[bytes]) -> tuple[str, bool, int]:
    """The order of bytes, whether it is BigTIFF, and the place of the first directory."""
    order = {b"II": "<", b"MM": ">"}[file.read(2)]
    [version] = _unpack(file, f"{order}H")
    large = version == 43
    if large:
        _unpack(file, f"{order}HH")
    return order, large, _unpack(file, f"{order}{'Q' if large else 'I'}")[0]


def _tiff_directory(file: IO[bytes], place: int, order: str, large: bool) -> tuple[Tags, int]:
    """The tags with whole numbers of one directory, and the place of the next one; 0 when it is the last."""
    count, entry, field = ("Q", "HHQ8s", 8) if large else ("H", "HHI4s", 4)
    _go(file, place)
    [entries] = _unpack(file, order + count)
    found = [_unpack(file, order + entry) for _ in range(min(entries, 65536))]
    rest = file.read(field)
    following = int.from_bytes(rest, "little" if order == "<" else "big") if len(rest) == field else 0
    tags: Tags = {}
    for tag, kind, number, value in found:
        if tag in (WIDTH, HEIGHT, ORIENTATION, SUBFILE_TYPE, SUB_IFDS) and kind in FORMATS:
            layout = f"{order}{min(number, MAX_PAGES)}{FORMATS[kind]}"
            if struct.calcsize(layout) <= field:
                tags[tag] = struct.unpack_from(layout, value)
            else:
                _go(file, int.from_bytes(value, "little" if order == "<" else "big"))
                tags[tag] = _unpack(file, layout)
    return tags, following


def _go(file: IO[bytes], place: int) -> None:
    """Go to a place that the file states. Raises ValueError when it is behind the end."""
    if place > file.seek(0, os.SEEK_END):
        raise ValueError("a place behind the end of the file")
    file.seek(place)


def _exif_orientation(data: bytes) -> int:
    """The orientation in EXIF data, from 1 to 8; 1 in damaged data."""
    try:
        return next(_tiff_pages(io.BytesIO(data))).get(ORIENTATION, (1,))[0]
    except (struct.error, LookupError, ValueError, StopIteration):
        return 1


def _turned(size: Size, orientation: int) -> Size:
    return (size[1], size[0]) if 5 <= orientation <= 8 else size


def _unpack(file: IO[bytes], layout: str) -> tuple[Any, ...]:
    """Read a structure. Raises struct.error at the end of the file."""
    return struct.unpack(layout, file.read(struct.calcsize(layout)))


def _begins(*signatures: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.startswith(signatures)


READERS: list[tuple[Callable[[bytes], bool], Callable[[IO[bytes]], Size]]] = [
    (_begins(b"\x89PNG\r\n\x1a\n"), _png),
    (_begins(b"\xff\xd8\xff"), _jpeg),
    (lambda head: head[:4] == b"RIFF" and head[8:12] == b"WEBP", _webp),
    (_begins(b"GIF8"), _gif),
    (_begins(b"BM"), _bmp),
    (_begins(b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), _tiff),
    (lambda head: head[4:8] == b"ftyp", heif),
    (_begins(b"\0\0\0\x0cJXL ", b"\xff\x0a"), jpeg_xl),
    (_begins(b"\0\0\0\x0cjP", b"\xff\x4f\xff\x51"), jpeg_2000),
]
"""Whether the first 16 bytes are those of a format → the function that reads the size from such a file."""
