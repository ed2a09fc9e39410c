"""Reads GIF. Around a frame that is smaller than its canvas, the image is transparent.

Pillow decodes the numbers of the colours of each frame. Frames are put together as browsers do it: Pillow fills the
place of a frame that is disposed of with the background colour, which browsers make transparent.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from upres.core import formats
from upres.core.errors import TruncatedImage
from upres.worker.imaging import gif_blocks
from upres.worker.imaging.gif_blocks import CLEAR, RESTORE, Frame, Gif
from upres.worker.imaging.raster import Raster, Rasters
from upres.worker.imaging.readers import pillow
from upres.worker.imaging.readers.canvas import Canvas, Disposal, Part, without_opaque_alpha
from upres.worker.samples import Samples

DISPOSALS: dict[int, Disposal] = {CLEAR: "clear", RESTORE: "restore", 4: "restore"}
"""Disposals of GIF; 4 is written by old programs. All others keep the frame."""
COLOURFUL = bytes(range(256)) + bytes(512)
"""A palette with which Pillow does not convert the numbers of the colours to gray levels."""


def read(data: bytes, max_pixels: int) -> Raster:
    """Read the first frame of a GIF file. Raises TooManyPixels, or an error of DAMAGE."""
    gif = gif_blocks.parsed(data, 1)
    formats.check_pixels(gif.width, gif.height, max_pixels)
    if not gif.frames:
        raise ValueError("it has no complete frame")
    [samples] = without_opaque_alpha(list(_shown(gif)))
    return Raster(samples, "png")


def has_several(data: bytes) -> bool:
    """Return whether a GIF file has more than one frame, or may have had more. Raises one of DAMAGE."""
    gif = gif_blocks.parsed(data, 2)
    return len(gif.frames) > 1 or not gif.complete


def count(data: bytes) -> int:
    """Return the number of frames of a GIF file, of which two are counted. Raises one of DAMAGE."""
    return len(gif_blocks.parsed(data, 2).frames)


def read_all(data: bytes, max_pixels: int) -> Rasters | None:
    """Read an animation; None if no frame is sound. Raises TooManyPixels, or one of DAMAGE."""
    gif = gif_blocks.parsed(data, formats.MAX_FRAMES + 1)
    formats.check_frames(len(gif.frames), gif.width, gif.height, max_pixels)
    outside = sum(max(0, frame.width * frame.height - gif.width * gif.height) for frame in gif.frames)
    if outside > max_pixels:  # it would be decoded, and not be seen
        raise TruncatedImage("The GIF file is damaged (its frames are much larger than the image); save it anew.")
    shown, sound = pillow.until_damage(_shown(gif))
    if not shown:
        return None
    rasters = [Raster(samples, "gif" if len(shown) > 1 else "png") for samples in without_opaque_alpha(shown)]
    durations = [10 * frame.delay for frame in gif.frames]
    plays = 1 if gif.repetitions is None else gif.repetitions and gif.repetitions + 1
    return Rasters.of(rasters, durations, plays, complete=gif.complete and sound)


def _shown(gif: Gif) -> Iterator[Samples]:
    """Yield what is visible during each frame: (height, width, 4); or 2, if all palettes are gray."""
    canvas = None
    gray = all((_colours(frame)[:, :1] == _colours(frame)[:, 1:]).all() for frame in gif.frames)
    for frame in gif.frames:
        samples = _rgba(frame)[..., 2:] if gray else _rgba(frame)
        canvas = canvas or Canvas(gif.width, gif.height, samples)
        yield canvas.shown(Part(samples, frame.left, frame.top, DISPOSALS.get(frame.disposal, "keep"), blend=True))


def _rgba(frame: Frame) -> Samples:
    """Decode a frame to (height, width, 4). Numbers that are not in its palette are transparent, as in browsers."""
    alone = frame._replace(left=0, top=0, palette=COLOURFUL, transparent=None)
    with pillow.opened(gif_blocks.written(frame.width, frame.height, [alone], None), "GIF") as image:
        image.load()
        numbers = np.asarray(image.convert("P") if image.mode != "P" else image)
    colours = np.zeros((256, 4), np.uint8)
    palette = _colours(frame)
    colours[: len(palette), :3], colours[: len(palette), 3] = palette, 255
    if frame.transparent is not None:
        colours[frame.transparent] = 0
    shown: Samples = colours[numbers]
    return shown


def _colours(frame: Frame) -> npt.NDArray[np.uint8]:
    """Return the palette of a frame, (colours, 3); gray levels if the file has none."""
    stored = np.frombuffer(frame.palette, np.uint8).reshape(-1, 3)
    return stored if len(stored) else np.arange(256, dtype=np.uint8)[:, None].repeat(3, axis=1)
