"""The samples of an image file as its reader returns them, before they become a Picture."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from upres.core.schema import OutputFormat
from upres.worker.samples import Samples

MAX_DURATION = 2**24 - 1
"""Longest time in milliseconds for which a frame is shown: that of WebP (RFC 9649, section 2.7.1.1)."""
MAX_PLAYS = 2**16
"""Largest number of times that an animation is shown."""
MAX_NOTICES, MAX_NOTICE = 8, 500
"""Number of notices about one file that are told, and the length of one in characters."""


@dataclass(frozen=True)
class Raster:
    """One picture of an image file, upright, with samples from 0 to 255 or from 0 to 65,535."""

    samples: Samples
    """(height, width, channels): 1 gray, 2 gray and alpha, 3 RGB, 4 RGB and alpha; alpha is not premultiplied."""
    format: OutputFormat
    """Format of the result when the request says `auto`."""
    icc: bytes | None = None
    """ICC profile of the samples, gray or RGB; None if the file has none, or it does not fit any more."""
    notices: tuple[str, ...] = ()
    """Sentences for the user: what is wrong with the file although it could be read."""
    lossless: bool = False
    """Whether the file is a WebP without loss."""

    @property
    def has_alpha(self) -> bool:
        """Whether the last channel is alpha."""
        return self.samples.shape[2] in (2, 4)


@dataclass(frozen=True)
class Rasters:
    """All frames of an animation, which have one size and the same channels; or all pages of a file."""

    frames: tuple[Raster, ...]
    durations: tuple[int, ...] = ()
    """Milliseconds for which each frame of an animation is shown; empty for pages."""
    plays: int = 0
    """How often an animation is shown; 0: for ever."""

    @classmethod
    def of(cls, frames: Sequence[Raster], durations: Sequence[int] = (), plays: int = 0, complete: bool = True) -> Self:
        """Make it of the sound frames at the beginning of a file; with a notice, unless it was complete."""
        first = frames[0]
        if not complete:
            what = "frame" if durations else "page"
            sound = f"{len(frames):,} {what}s, which are" if len(frames) > 1 else f"{what}, which is"
            notice = f"The file is incomplete or damaged; the result has its first {sound} sound."
            first = replace(first, notices=(*first.notices, notice))
        if len(frames) == 1:
            return cls((first,))
        shown = tuple(min(duration, MAX_DURATION) for duration in durations[: len(frames)])
        return cls((first, *frames[1:]), shown, min(plays, MAX_PLAYS) if durations else 0)
