"""Writes GIF, still or animated: each frame is quantised and compressed as soon as its rows are complete.

A frame has at most 255 colours, and one that is transparent. Octree quantisation with Floyd-Steinberg dither was chosen
by measurement: on enlarged photos its error as the eye sees it (after a blur of 1.5 pixels) is 0.8 levels, that of
median cut 1.5 to 2.3 and of maximum coverage 0.7 to 1.0, which both take 20 to 200 times as long.

Pillow compresses the frames. Its own writer of animations joins equal frames, so that their number changes.
"""

import io
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise

import numpy as np
import numpy.typing as npt
from PIL import Image

from upres.worker.imaging import gif_blocks
from upres.worker.imaging.gif_blocks import CLEAR, KEEP, Frame
from upres.worker.imaging.picture import Pictures
from upres.worker.imaging.result_file import ResultFile
from upres.worker.imaging.writers.refusals import refused_by
from upres.worker.imaging.writers.rows import as_in_file
from upres.worker.samples import Samples

COLOURS = 255
"""Most colours of a frame; the one after them is transparent."""
VISIBLE = 128
"""Alpha from which on a pixel is visible: GIF has no other alpha."""

PACKED = np.array([1 << 16, 1 << 8, 1], np.int32)
"""Red, green and blue → one number."""

Pixels = npt.NDArray[np.uint8]
Box = tuple[slice, slice]
"""Rows and columns."""


class GifEncoder:
    """An Encoder (imaging/encode.py) for GIF, with 8 bits."""

    def __init__(self, pictures: Pictures, output: ResultFile, sink: Callable[[bytes], object]) -> None:
        self._pictures, self._size, self._sink = pictures, output.size, sink
        self._delays = _delays(pictures.durations or (0,))
        channels = pictures.first.channels + (pictures.first.alpha is not None)
        self._pixels: Pixels = np.empty((output.size[1], output.size[0], channels), np.uint8)
        self._before: Pixels | None = None
        """The frame before the one in `_pixels`."""
        self._row = 0
        self._frames: list[Frame] = []

    def write(self, band: Samples) -> None:
        """See Encoder."""
        self._pixels[self._row : self._row + len(band)] = as_in_file(band, self._pictures.first)
        self._row += len(band)
        if self._row == len(self._pixels):
            with refused_by("gif"):
                self._frames.append(self._frame())
            self._before, self._pixels, self._row = self._pixels, np.empty_like(self._pixels), 0

    def finish(self) -> None:
        """See Encoder. Raises ValueError when rows are missing."""
        if len(self._frames) < len(self._pictures.frames):
            raise ValueError("rows are missing")
        plays = self._pictures.plays
        repetitions = None if not self._pictures.animated or plays == 1 else max(0, plays - 1)
        with refused_by("gif"):
            file = gif_blocks.written(*self._size, self._frames, repetitions)
        self._sink(file)

    def _frame(self) -> Frame:
        """Return the complete frame: without alpha only what differs from the frame before, which stays visible."""
        delay = self._delays[len(self._frames)]
        if self._pictures.first.alpha is not None:
            return _compressed(self._pixels, has_alpha=True)._replace(delay=delay, disposal=CLEAR, transparent=COLOURS)
        if self._before is None:
            return _compressed(self._pixels, has_alpha=False)._replace(delay=delay, disposal=KEEP)
        if (box := _changed(self._pixels, self._before)) is None:
            return NOTHING._replace(delay=delay)
        frame = _compressed(self._pixels[box], has_alpha=False)
        return frame._replace(delay=delay, disposal=KEEP, top=box[0].start, left=box[1].start)


def _delays(durations: tuple[int, ...]) -> list[int]:
    """Return durations in hundredths of a second, rounded so that the times at which frames begin are right."""
    return [(end + 5) // 10 - (begin + 5) // 10 for begin, end in pairwise(accumulate(durations, initial=0))]


def _compressed(pixels: Pixels, has_alpha: bool) -> Frame:
    """Return a frame at the top left corner."""
    file = io.BytesIO()
    _quantised(pixels, has_alpha).save(file, "GIF", optimize=False, interlace=False)
    [made] = gif_blocks.parsed(file.getvalue(), 1).frames
    return made


def _changed(pixels: Pixels, before: Pixels) -> Box | None:
    """Return the smallest box in which two frames differ; None if they are equal."""
    differs = (pixels != before).any(axis=2)
    rows, columns = np.flatnonzero(differs.any(axis=1)), np.flatnonzero(differs.any(axis=0))
    if not rows.size:
        return None
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _quantised(pixels: Pixels, has_alpha: bool) -> Image.Image:
    """Return an image with a palette, in which invisible pixels have the number COLOURS."""
    colours = pixels[..., :-1] if has_alpha else pixels
    rgb = np.ascontiguousarray(np.broadcast_to(colours, (*colours.shape[:2], 3)))
    image = Image.fromarray(rgb)
    if few := image.getcolors(COLOURS):
        made = _exact(rgb, [colour for _, colour in few if isinstance(colour, tuple)])
    else:
        palette = image.quantize(COLOURS, method=Image.Quantize.FASTOCTREE)
        made = image.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
    if has_alpha:
        palette_bytes = bytes(made.getpalette("RGB") or ()).ljust(768, b"\0")
        made = Image.fromarray(np.where(pixels[..., -1] < VISIBLE, np.uint8(COLOURS), np.asarray(made)))
        made.putpalette(palette_bytes)
    return made


def _exact(rgb: Pixels, colours: Sequence[tuple[int, ...]]) -> Image.Image:
    """Return an image of few colours with exactly these; Pillow's search in a palette is not exact."""
    number_of = np.zeros(1 << 24, np.uint8)
    for number, (red, green, blue) in enumerate(colours):
        number_of[red << 16 | green << 8 | blue] = number
    numbers = np.empty(rgb.shape[:2], np.uint8)
    for row, pixels in zip(numbers, rgb, strict=True):  # row by row, because it takes many bytes a pixel
        row[:] = number_of[pixels.astype(np.int32) @ PACKED]
    made = Image.fromarray(numbers)
    made.putpalette(bytes(sample for colour in colours for sample in colour))
    return made


NOTHING = _compressed(np.zeros((1, 1, 3), np.uint8), has_alpha=False)._replace(disposal=KEEP, transparent=0)
"""A frame that changes nothing: one transparent pixel."""
