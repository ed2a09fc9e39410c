"""The samples of an image file as its reader returns them, before they become a Picture."""

from dataclasses import dataclass

from upres.core.schema import OutputFormat
from upres.worker.samples import Samples

MAX_NOTICES, MAX_NOTICE = 8, 500
"""Number of notices about one file that are told, and the length of one in characters."""


@dataclass(frozen=True)
class Raster:
    """The first frame of an image file, upright, with samples from 0 to 255 or from 0 to 65,535."""

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
