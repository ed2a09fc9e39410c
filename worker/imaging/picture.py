"""The picture that the network enlarges, and what its result gets back; made from the samples of a file."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from upres.core.errors import UnsupportedImage
from upres.core.formats import Several
from upres.core.schema import Depth, OutputFormat
from upres.worker.imaging import colour
from upres.worker.imaging.metadata import NOTHING, Metadata
from upres.worker.imaging.raster import MAX_NOTICES, Raster, Rasters
from upres.worker.imaging.transparency import filled
from upres.worker.samples import Samples, eight_bits, sixteen_bits

MAX_ICC_BYTES = 1 << 20
"""Largest ICC profile in bytes that is kept. Pillow itself reads no PNG with a larger one. CMYK profiles are often
larger, but they are not kept."""
MAX_PROFILES = 8 << 20
"""Largest size in bytes of the profiles of all pages together: in a small file a thousand may have the same."""
STEP = 16
"""Distance of the pixels that are looked at first, to find out quickly that an image has colours."""


@dataclass(frozen=True)
class Picture:
    """A decoded image: the pixels for the network, and the properties that the result gets back when it is encoded."""

    pixels: Samples
    """(height, width, 3), RGB; or (height, width, 4), with alpha that is not premultiplied; 8 or 16 bits."""
    gray: bool
    """Whether red, green and blue are equal everywhere; then they are so in the result, too."""
    channels: int
    """Number of channels of the result, without alpha: 1 if the file has one, or 3."""
    icc: bytes | None
    """ICC profile, or None."""
    format: OutputFormat
    """Format of the result when the request says `auto`."""
    lossless: bool = False
    """Whether the file is a WebP without loss: then the result is one, if it is a WebP."""
    notices: tuple[str, ...] = ()
    """Sentences for the user about the file."""
    metadata: Metadata = NOTHING

    @property
    def alpha(self) -> Samples | None:
        """(height, width), as a view; None without alpha."""
        return self.pixels[..., 3] if self.pixels.shape[2] == 4 else None

    @property
    def depth(self) -> Depth:
        """Bits of a sample."""
        return 8 if self.pixels.dtype == np.uint8 else 16

    def at_depth(self, depth: Depth) -> "Picture":
        """Return the picture with samples of 8 or 16 bits."""
        return replace(self, pixels=eight_bits(self.pixels) if depth == 8 else sixteen_bits(self.pixels))

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        return self.pixels.shape[1], self.pixels.shape[0]


@dataclass(frozen=True)
class Pictures:
    """The pictures of a file: one; or the frames of an animation, which all have one size, and one kind of pixels; or
    the pages of a document.
    """

    frames: tuple[Picture, ...]
    durations: tuple[int, ...] = ()
    """Milliseconds for which each frame of an animation is shown; empty for pages and still images."""
    plays: int = 0
    """How often an animation is shown; 0: for ever."""
    left_out: Several | None = None
    """What the file has more of than the result can have."""
    more_notices: tuple[str, ...] = ()
    """Sentences for the user beside those about each picture."""

    @property
    def first(self) -> Picture:
        """The first picture, or the only one."""
        return self.frames[0]

    @property
    def animated(self) -> bool:
        """Whether it is an animation."""
        return bool(self.durations)

    @property
    def notices(self) -> tuple[str, ...]:
        """Sentences for the user about the file and its result, each once."""
        return tuple(dict.fromkeys([*self.more_notices, *(one for frame in self.frames for one in frame.notices)]))[
            :MAX_NOTICES
        ]

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(width, height) of each picture."""
        return [frame.size for frame in self.frames]

    def noticed(self, *notices: str) -> "Pictures":
        """Return the same with more notices."""
        return replace(self, more_notices=(*self.more_notices, *notices))


def pictures(rasters: Rasters) -> Pictures:
    """Make the pictures of a file's samples. Raises UnsupportedImage when an ICC profile is too large."""
    if not rasters.durations and sum(len(one.icc or b"") for one in rasters.frames) > MAX_PROFILES:
        most = MAX_PROFILES >> 20
        raise UnsupportedImage(f"The colour profiles of the pages have more than {most} MiB; ask for frames: first.")
    frames: Iterable[Picture] = tuple(picture(one) for one in rasters.frames)
    if rasters.durations:  # one file has one kind of pixels
        gray = all(frame.gray for frame in frames)
        frames = (replace(frame, gray=gray) for frame in frames)
    return Pictures(tuple(frames), rasters.durations, rasters.plays)


def picture(raster: Raster) -> Picture:
    """Make the picture of a file's samples. Raises UnsupportedImage when their ICC profile is too large."""
    if raster.icc and len(raster.icc) > MAX_ICC_BYTES:
        raise UnsupportedImage(f"The colour profile has more than {MAX_ICC_BYTES >> 20} MiB; save the image without.")
    samples, icc = raster.samples, raster.icc
    colours = samples[..., :-1] if raster.has_alpha else samples
    channels = colours.shape[2]
    if channels == 1 and icc:  # WebP has no grayscale, and browsers do not apply every gray profile
        colours, icc = colour.gray_in_srgb(colours, icc), None
    gray = channels == 1 or _is_neutral(colours)
    if raster.has_alpha:
        colours = filled(colours, samples[..., -1])
    planes = [colours] * (3 // channels) + [samples[..., -1:]] * raster.has_alpha
    pixels = planes[0] if len(planes) == 1 else np.concatenate(planes, axis=2)
    if icc and not colour.fits_rgb(icc):
        icc = None
    kept = (icc, raster.format, raster.lossless, raster.notices)
    return Picture(np.ascontiguousarray(pixels), gray, channels, *kept)


def _is_neutral(colours: Samples) -> bool:
    """Return whether red, green and blue are equal everywhere, as in a screentone that was saved as RGB."""
    return all((part == part[..., :1]).all() for part in (colours[::STEP, ::STEP], colours))
