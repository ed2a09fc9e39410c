"""Reads AVIF by Pillow; with more than 8 bits the samples come from libavif (imagecodecs), because Pillow cuts them.

kept       alpha, grayscale, ICC profile, 10 and 12 bits
applied    the file's own rotation and mirroring (irot, imir). An orientation in EXIF is ignored, as MIAF wants it
changed    animation → first frame, with a notice (images.py)
"""

from dataclasses import replace

import imagecodecs
import numpy as np

from upres.core.formats import check_pixels
from upres.worker.imaging import colour
from upres.worker.imaging.raster import Raster
from upres.worker.imaging.readers import pillow
from upres.worker.imaging.readers.samples import channels_last, full_range, upright
from upres.worker.samples import Samples

CONFIGURATION = b"av1C"
"""The box with the properties of AV1 (AV1 Codec ISO Media File Format Binding, section 2.3)."""


def read(data: bytes, max_pixels: int) -> Raster:
    """Read an AVIF file. Raises TooManyPixels or an error of DAMAGE."""
    with pillow.opened(data, "AVIF") as image:
        check_pixels(*image.size, max_pixels)
        if (bits := _bits(data)) == 8:
            image.load()
            raster = pillow.raster(image, "webp")
            return replace(raster, icc=colour.of_container(data, raster.icc))
        values: Samples = channels_last(imagecodecs.avif_decode(data, index=0, numthreads=1))
        if values.shape[:2] != image.size[::-1] or values.dtype != np.uint16:
            raise ValueError("the pixels are not those that the header describes")
        samples = upright(full_range(values, bits), pillow.orientation(image.info.get("exif")))
        return Raster(samples, "webp", colour.of_container(data, image.info.get("icc_profile")))


def _bits(data: bytes) -> int:
    """Return the bits per sample of the first image in the file."""
    found = data.find(CONFIGURATION)
    flags = data[found + 6] if 0 <= found < len(data) - 6 else 0
    return 8 if not flags & 0x40 else 12 if flags & 0x20 else 10
