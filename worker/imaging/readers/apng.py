"""Reads animated PNG (W3C PNG, Third Edition, section 11.3.6). Each frame becomes a PNG file, and png.py reads it.

Pillow reduces 16 bits to 8, and mixes alpha wrongly where a frame is laid over another one.
"""

import struct
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import islice, pairwise
from typing import NamedTuple

from upres.core import formats
from upres.worker.imaging.raster import Rasters
from upres.worker.imaging.readers import pillow, png
from upres.worker.imaging.readers.canvas import Canvas, Disposal, Part, with_alpha, without_opaque_alpha
from upres.worker.imaging.readers.png_chunks import Png, chunk, chunks, is_sound, parsed, size
from upres.worker.samples import Samples

DISPOSALS: tuple[Disposal, ...] = ("keep", "clear", "restore")
CONTROL = struct.Struct(">IIIIIHHBB")
"""The data of fcTL: sequence number, width, height, left, top, two parts of the duration, disposal, blending."""


class Frame(NamedTuple):
    """One frame as a file stores it."""

    width: int
    height: int
    left: int
    top: int
    duration: Fraction
    """Seconds."""
    disposal: Disposal
    blend: bool
    pixels: list[bytes]
    """Compressed pixels, in the parts in which the file has them."""


def has_several(data: bytes) -> bool:
    """Return whether a PNG file is an animation, which may have one frame that is not the image for old readers."""
    return count(data) > 0


def count(data: bytes) -> int:
    """Return the number of frames that a PNG file states; 0 for a still image."""
    return _animation(data)[0]


def read_all(data: bytes, max_pixels: int) -> Rasters | None:
    """Read an animation; None if no frame is sound. Raises what png.read raises."""
    stated, plays = _animation(data)
    width, height = size(data)
    formats.check_frames(stated, width, height, max_pixels)
    file = parsed(data)
    frames, whole = pillow.until_damage(islice(_frames(data, width, height), stated))
    shown, sound = pillow.until_damage(_shown(file, frames))
    if not shown:
        return None
    rasters = [png.raster(samples, file) for samples in without_opaque_alpha(shown)]
    return Rasters.of(rasters, _milliseconds(frames), plays, complete=whole and sound and len(frames) == stated)


def _animation(data: bytes) -> tuple[int, int]:
    """Return the numbers of frames and of plays of an animation; 0 frames for a still image."""
    for name, start, end in chunks(data):
        if name == b"acTL" and end - start == 20 and is_sound(data, start, end):
            count, plays = struct.unpack_from(">II", data, start + 8)
            return count, plays
        if name == b"IDAT":
            break
    return 0, 0


def _frames(data: bytes, width: int, height: int) -> Iterator[Frame]:
    """Yield the frames. The image before the first fcTL is for old readers. Raises ValueError at the first damage."""
    frame = None
    for name, content in _parts(data):
        if frame and name in (b"fcTL", b"IEND"):
            yield frame
        if name == b"fcTL":
            frame = _frame(content, width, height)
        elif frame and name != b"IEND":
            frame.pixels.append(content)


def _parts(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield type and data of the chunks that make frames. Raises ValueError when one is damaged or in a wrong place."""
    number = 0
    for name, start, end in chunks(data):
        content = data[start + 8 : end - 4]
        if name in (b"fcTL", b"fdAT"):
            if not is_sound(data, start, end) or int.from_bytes(content[:4], "big") != number:
                raise ValueError("a frame is damaged, or in the wrong place")
            number += 1
        if name in (b"fcTL", b"fdAT", b"IDAT", b"IEND"):
            yield name, content[4:] if name == b"fdAT" else content


def _frame(content: bytes, of_width: int, of_height: int) -> Frame:
    _, width, height, left, top, part, whole, disposal, blend = CONTROL.unpack(content)
    if not (0 < width <= of_width - left and 0 < height <= of_height - top and disposal < 3 and blend < 2):
        raise ValueError("a frame is outside of the image")
    return Frame(width, height, left, top, Fraction(part, whole or 100), DISPOSALS[disposal], blend == 1, [])


def _shown(file: Png, frames: list[Frame]) -> Iterator[Samples]:
    """Yield what is visible during each frame: (height, width, 2 or 4)."""
    canvas = None
    for frame in frames:
        samples = with_alpha(png.samples(_alone(file, frame)))
        canvas = canvas or Canvas(file.width, file.height, samples)
        yield canvas.shown(Part(samples, frame.left, frame.top, frame.disposal, frame.blend))


def _alone(file: Png, frame: Frame) -> Png:
    """Return a frame as a PNG file of its own."""
    header = struct.pack(">II", frame.width, frame.height) + file.critical[0][16:21]
    others = [one for one in file.critical[1:] if one[4:8] not in (b"IDAT", b"IEND")]
    parts = (chunk(b"IHDR", header), *others, *(chunk(b"IDAT", part) for part in frame.pixels), chunk(b"IEND", b""))
    return replace(file, width=frame.width, height=frame.height, critical=parts)


def _milliseconds(frames: list[Frame]) -> list[int]:
    """Return the durations, rounded so that the times at which frames begin are right."""
    ends, time = [0], Fraction(0)
    for frame in frames:
        time += frame.duration
        ends.append(round(time * 1000))
    return [end - begin for begin, end in pairwise(ends)]
