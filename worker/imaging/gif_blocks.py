"""The blocks of a GIF file (GIF89a): its frames as they are stored, and files of them. Pure: bytes in, bytes out."""

import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

EXTENSION, IMAGE, TRAILER = 0x21, 0x2C, 0x3B
"""First bytes of blocks."""
GRAPHIC_CONTROL, APPLICATION = 0xF9, 0xFF
"""Labels of extensions."""
LOOPS = (b"NETSCAPE2.0", b"ANIMEXTS1.0")
"""Applications whose extension says how often an animation is repeated."""
KEEP, CLEAR, RESTORE = 1, 2, 3
"""What happens with a frame when its time is over: it stays, becomes transparent, or what was before it returns."""
INTERLACED, LOCAL_PALETTE = 0x40, 0x80
MAX_DELAY = 65_535


class Frame(NamedTuple):
    """One frame as a file stores it."""

    left: int
    top: int
    width: int
    height: int
    palette: bytes
    """Red, green and blue of each colour."""
    transparent: int | None
    """Number of the colour that is transparent, or None."""
    delay: int
    """Time for which the frame is shown, in hundredths of a second."""
    disposal: int
    data: bytes
    """The numbers of the colours, compressed: the size of a code, then blocks, up to an empty one."""
    interlaced: bool = False


class Gif(NamedTuple):
    """The frames of a file."""

    width: int
    height: int
    frames: list[Frame]
    repetitions: int | None
    """How often the animation is shown again after the first time; 0: for ever; None: the file does not say it."""
    complete: bool
    """Whether the file ends as it should; else there may have been more frames."""


def parsed(data: bytes, most: int) -> Gif:
    """Take a GIF file apart, up to `most` frames. Raises IndexError or struct.error when it is cut before its size."""
    width, height, flags = struct.unpack_from("<HHBxx", data, 6)
    start = 13 + _palette_bytes(flags)
    frames: list[Frame] = []
    repetitions, complete = None, False
    control: tuple[int, int, int | None] = (0, 0, None)
    try:
        for kind, at, end in _blocks(data, start):
            if kind == GRAPHIC_CONTROL:
                control = _control(data[at:end])
            elif kind == APPLICATION and data[at + 1 : at + 12] in LOOPS and data[at + 13] & 7 == 1:
                repetitions = int.from_bytes(data[at + 14 : at + 16], "little")
            elif kind == IMAGE:
                frames.append(_frame(data[at:end], data[13:start], *control))
                control = (0, 0, None)
                if len(frames) == most:
                    break
        else:
            complete = len(frames) == 1 or data.endswith(bytes([TRAILER]))  # still images often lack the last byte
    except (IndexError, ValueError, struct.error):
        pass
    if frames:  # as browsers do: the first frame may be larger than the size that the file states
        first = frames[0]
        width, height = max(width, first.left + first.width), max(height, first.top + first.height)
    return Gif(width, height, frames, repetitions, complete)


def written(width: int, height: int, frames: Iterable[Frame], repetitions: int | None) -> bytes:
    """Return a GIF file whose frames have palettes of their own. See Gif for `repetitions`."""
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0, 0, 0)
    if repetitions is not None:
        head += bytes([EXTENSION, APPLICATION, 11]) + LOOPS[0] + b"\3\1" + struct.pack("<H", repetitions) + b"\0"
    return b"".join([head, *map(_block, frames), bytes([TRAILER])])


def _block(frame: Frame) -> bytes:
    flags = frame.disposal << 2 | (frame.transparent is not None)
    control = struct.pack("<BHB", flags, min(frame.delay, MAX_DELAY), frame.transparent or 0)
    size = max(1, (len(frame.palette) // 3 - 1).bit_length())
    flags = LOCAL_PALETTE | size - 1 | (INTERLACED if frame.interlaced else 0)
    box = struct.pack("<BHHHHB", IMAGE, frame.left, frame.top, frame.width, frame.height, flags)
    palette = frame.palette.ljust(3 << size, b"\0")
    return bytes([EXTENSION, GRAPHIC_CONTROL, 4]) + control + b"\0" + box + palette + frame.data


def _blocks(data: bytes, at: int) -> Iterator[tuple[int, int, int]]:
    """Yield kind, start and end of each block: of the label of extensions, or IMAGE. Raises IndexError if it is cut."""
    while at < len(data) and data[at] != TRAILER:
        if data[at] == EXTENSION:
            kind, start = data[at + 1], at + 2
            at = _end(data, start)
        elif data[at] == IMAGE:
            kind, start = IMAGE, at + 1
            codes = start + 10 + _palette_bytes(data[start + 8])
            if codes > len(data):
                raise IndexError
            at = _end(data, codes, lenient=True)
        else:
            raise ValueError("there is no block where one should be")
        yield kind, start, at


def _end(data: bytes, at: int, lenient: bool = False) -> int:
    """Return the end of the sub-blocks at this place.

    When they are cut, raises IndexError, or returns the end of the last whole one: all pixels may be before it.
    """
    while at < len(data) and (length := data[at]):
        if lenient and at + 1 + length > len(data):
            return at
        at += 1 + length
    if at >= len(data) and not lenient:
        raise IndexError("the blocks are cut")
    return min(at + 1, len(data))


def _palette_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & LOCAL_PALETTE else 0


def _control(block: bytes) -> tuple[int, int, int | None]:
    """Return delay, disposal and transparent colour of a graphic control extension."""
    flags, delay, transparent = struct.unpack_from("<BHB", block, 1)
    return delay, flags >> 2 & 7, transparent if flags & 1 else None


def _frame(block: bytes, common: bytes, delay: int, disposal: int, transparent: int | None) -> Frame:
    left, top, width, height, flags = struct.unpack_from("<HHHHB", block)
    if not (width and height):
        raise ValueError("a frame without pixels")
    end = 9 + _palette_bytes(flags)
    data = block[end:] if block.endswith(b"\0") else block[end:] + b"\0"
    interlaced = bool(flags & INTERLACED)
    return Frame(left, top, width, height, block[9:end] or common, transparent, delay, disposal, data, interlaced)
