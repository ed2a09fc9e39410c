"""The picture that the network enlarges, and what its result gets back; made from the samples of a file."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from upres.core.errors import UnsupportedImage
from upres.core.schema import OutputFormat
from upres.worker.imaging.raster import Raster, Samples

Pixels = npt.NDArray[np.uint8]

MAX_ICC_BYTES = 1 << 20
"""Largest ICC profile in bytes that is kept. Pillow itself reads no PNG with a larger one. CMYK profiles are often
larger, but they are not kept."""


@dataclass(frozen=True)
class Picture:
    """A decoded image: the pixels for the network, and the properties that the result gets back when it is encoded."""

    pixels: Pixels
    """(height, width, 3), RGB."""
    alpha: Pixels | None
    """(height, width), or None."""
    gray: bool
    """Whether the image is grayscale: then its three channels are equal, and the result has one channel."""
    icc: bytes | None
    """ICC profile, or None."""
    format: OutputFormat
    """Format of the result when the request says `auto`."""
    notices: tuple[str, ...] = ()
    """Sentences for the user about the file."""

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        return self.pixels.shape[1], self.pixels.shape[0]


def picture(raster: Raster) -> Picture:
    """Make the picture of a file's samples. Raises UnsupportedImage when their ICC profile is too large."""
    if raster.icc and len(raster.icc) > MAX_ICC_BYTES:
        raise UnsupportedImage(f"The colour profile has more than {MAX_ICC_BYTES >> 20} MiB; save the image without.")
    samples = eight_bits(raster.samples)
    colours, alpha = (samples[..., :-1], samples[..., -1]) if raster.has_alpha else (samples, None)
    gray = colours.shape[2] == 1
    pixels = np.repeat(colours, 3, axis=2) if gray else np.ascontiguousarray(colours)
    return Picture(pixels, alpha, gray, raster.icc, raster.format, raster.notices)


def eight_bits(samples: Samples) -> Pixels:
    """Convert samples of 8 or 16 bits to 8 bits, rounded: 65535 / 257 = 255."""
    if samples.dtype == np.uint8:
        return samples  # type: ignore[return-value]
    return ((samples.astype(np.uint32) + 128) // 257).astype(np.uint8)
