"""Reads WebP by Pillow. Around a frame of an animation that is smaller than its canvas, all is transparent.

Pillow makes it black when the file says that no frame has an alpha channel, so animations are read as if one had.
"""

import struct
from collections.abc import Iterator
from dataclasses import replace

from PIL import Image

from upres.core import formats
from upres.worker.imaging.raster import Raster, Rasters
from upres.worker.imaging.readers import pillow
from upres.worker.imaging.readers.canvas import without_opaque_alpha
from upres.worker.samples import Samples

FLAGS, CANVAS = 20, 24
"""Places of the flags and of the canvas's size in an extended file (RFC 9649, section 2.7)."""
ANIMATION, ALPHA = 0x02, 0x10
FRAME_HEADER = 16
"""Bytes before the chunks of a frame."""


def read(data: bytes, max_pixels: int) -> Raster:
    """Read the first frame of a WebP file. Raises TooManyPixels or an error of DAMAGE."""
    return replace(_first_frame(data, max_pixels), lossless=_is_lossless(data))


def has_several(data: bytes) -> bool:
    """Return whether a WebP file has more than one frame, or may have had more."""
    if not _is_animation(data):
        return False
    frames, _, end = _frames(data)
    return len(frames) > 1 or (len(frames) == 1 and end < _stated_end(data))


def count(data: bytes) -> int:
    """Return the number of frames of a WebP file."""
    return len(_frames(data)[0]) if _is_animation(data) else 1


def read_all(data: bytes, max_pixels: int) -> Rasters | None:
    """Read an animation; None if no frame is sound. Raises TooManyPixels, or one of DAMAGE."""
    frames, plays, end = _frames(data)
    durations = [int.from_bytes(frame[12:15], "little") for frame in frames]
    width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (CANVAS, CANVAS + 3))
    formats.check_frames(len(durations), width, height, max_pixels)
    with pillow.opened(_with_alpha(data[:4] + struct.pack("<I", end - 8) + data[8:end]), "WEBP") as image:
        shown, sound = pillow.until_damage(_shown(image, len(durations)))
        first = pillow.raster(image, "webp")
    if not shown:
        return None
    lossless = all(_is_lossless(frame, FRAME_HEADER) for frame in frames)
    rasters = [replace(first, samples=samples, lossless=lossless) for samples in without_opaque_alpha(shown)]
    return Rasters.of(rasters, durations, plays, complete=sound and end >= _stated_end(data))


def _shown(image: Image.Image, count: int) -> Iterator[Samples]:
    for number in range(count):
        image.seek(number)
        yield pillow.raster(image.copy(), "webp").samples


def _stated_end(data: bytes) -> int:
    return int(struct.unpack_from("<I", data, 4)[0]) + 8


def _is_animation(data: bytes) -> bool:
    return data[12:16] == b"VP8X" and len(data) > FLAGS and bool(data[FLAGS] & ANIMATION)


def _with_alpha(data: bytes) -> bytes:
    """Return an extended file that says that frames have an alpha channel."""
    return data[:FLAGS] + bytes([data[FLAGS] | ALPHA]) + data[FLAGS + 1 :]


def _first_frame(data: bytes, max_pixels: int) -> Raster:
    if not _is_animation(data) or data[FLAGS] & ALPHA:
        return pillow.read(data, max_pixels, "WEBP", "webp")
    raster = pillow.read(_with_alpha(data), max_pixels, "WEBP", "webp")
    opaque = raster.has_alpha and (raster.samples[..., -1] == 255).all()
    return replace(raster, samples=raster.samples[..., :-1]) if opaque else raster


def _frames(data: bytes) -> tuple[list[bytes], int, int]:
    """Return the data of the whole frames, the number of plays, and the end of the last whole chunk."""
    frames, plays, at = list[bytes](), 1, 12
    while at + 8 <= len(data) and len(frames) <= formats.MAX_FRAMES:
        kind, size = struct.unpack_from("<4sI", data, at)
        content, end = data[at + 8 : at + 8 + size], at + 8 + size + size % 2
        if end > len(data):
            break
        if kind == b"ANIM" and size >= 6:
            plays = int.from_bytes(content[4:6], "little")
        elif kind == b"ANMF":
            if size < FRAME_HEADER:
                break
            frames.append(content)
        at = end
    return frames, plays, at


def _is_lossless(data: bytes, at: int = 12) -> bool:
    """Return whether the first image among the chunks from this place on is without loss."""
    while at + 8 <= len(data):
        kind, size = struct.unpack_from("<4sI", data, at)
        if kind in (b"VP8L", b"VP8 "):
            return bool(kind == b"VP8L")
        at += 8 + (FRAME_HEADER if kind == b"ANMF" else size + size % 2)  # a frame contains chunks itself
    return False
