"""Writes animated GIF and PNG files block by block, without a library, and what has to be visible during each frame."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tests.support.png_files import SIGNATURE, chunk, of_samples

Pixels = npt.NDArray[np.uint8]
COLOURS: Pixels = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [250, 240, 10]], np.uint8)


@dataclass(frozen=True)
class GifFrame:
    """A frame: the numbers of its colours, (height, width), its place, and how it is shown."""

    numbers: Pixels
    left: int = 0
    top: int = 0
    delay: int = 10
    disposal: int = 0
    transparent: int | None = None
    palette: Pixels | None = None
    """Its own palette."""


def gif(width: int, height: int, frames: Sequence[GifFrame], loop: int | None = None) -> bytes:
    """A GIF file with the common palette COLOURS."""
    out = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x81, 1, 0) + COLOURS.tobytes()
    if loop is not None:
        out += b"!\xff\x0bNETSCAPE2.0\x03\x01" + struct.pack("<H", loop) + b"\0"
    return b"".join([out, *map(gif_block, frames), b";"])


def gif_block(frame: GifFrame) -> bytes:
    flags = frame.disposal << 2 | (frame.transparent is not None)
    height, width = frame.numbers.shape
    control = b"!\xf9\x04" + struct.pack("<BHBB", flags, frame.delay, frame.transparent or 0, 0)
    size = 0 if frame.palette is None else 0x80 | (len(frame.palette) - 1).bit_length() - 1
    box = b"," + struct.pack("<HHHHB", frame.left, frame.top, width, height, size)
    palette = b"" if frame.palette is None else frame.palette.tobytes()
    return control + box + palette + b"\x08" + _blocks(_codes(frame.numbers.tobytes())) + b"\0"


def _codes(numbers: bytes) -> bytes:
    """LZW that compresses nothing: codes of 9 bits, with a clear code before they would become longer."""
    value, bits = 0, 0
    for start in range(0, len(numbers), 200):
        for code in (256, *numbers[start : start + 200]):
            value, bits = value | code << bits, bits + 9
    return (value | 257 << bits).to_bytes((bits + 16) // 8, "little")


def _blocks(data: bytes) -> bytes:
    parts = (data[start : start + 255] for start in range(0, len(data), 255))
    return b"".join(bytes([len(part)]) + part for part in parts)


@dataclass(frozen=True)
class PngFrame:
    """A frame: its samples, (height, width, channels), its place, and how it is shown."""

    samples: npt.NDArray[np.generic]
    left: int = 0
    top: int = 0
    duration: tuple[int, int] = (1, 10)
    disposal: int = 0
    blend: int = 0


def apng(frames: Sequence[PngFrame], plays: int = 0, hidden: npt.NDArray[np.generic] | None = None) -> bytes:
    """An animated PNG file; with a still image for old readers that is no frame, if `hidden` is given.

    The canvas has the size of the still image or of the first frame.
    """
    still = of_samples(frames[0].samples if hidden is None else hidden)
    header, pixels = still[8:33], still[33:-12]
    out, number = [SIGNATURE, header, chunk(b"acTL", struct.pack(">II", len(frames), plays))], 0
    out += [pixels] if hidden is not None else []
    for index, frame in enumerate(frames):
        height, width = frame.samples.shape[:2]
        box = (width, height, frame.left, frame.top, *frame.duration, frame.disposal, frame.blend)
        out.append(chunk(b"fcTL", struct.pack(">IIIIIHHBB", number, *box)))
        number += 1
        if index == 0 and hidden is None:
            out.append(pixels)
            continue
        out.append(chunk(b"fdAT", struct.pack(">I", number) + of_samples(frame.samples)[41:-16]))
        number += 1
    return b"".join([*out, chunk(b"IEND", b"")])


def of_colours(numbers: Pixels, transparent: int | None = None) -> Pixels:
    """The frame of a GIF as RGBA."""
    alpha = np.where(numbers == (-1 if transparent is None else transparent), 0, 255)
    return np.dstack([COLOURS[numbers], alpha]).astype(np.uint8) * (alpha > 0)[..., None]
