"""Reads HEIC and HEIF with HEVC inside, by libheif (pillow-heif), because no other library here reads HEVC.

kept       alpha, grayscale, ICC profile, 10 and 12 bits
applied    the file's own rotation, mirroring and cropping (irot, imir, clap), by libheif. An orientation in EXIF is
           ignored, as the standard (ISO/IEC 23008-12) wants it: it repeats what is applied already
changed    several images → the primary one; thumbnails, depth images and auxiliary images are not decoded
refused    other codecs in HEIF
"""

import numpy as np
import pillow_heif

from upres.core.errors import UnsupportedImage
from upres.core.formats import check_pixels
from upres.worker.imaging import colour
from upres.worker.imaging.raster import Raster
from upres.worker.imaging.readers.samples import channels_last, straight
from upres.worker.samples import Samples

pillow_heif.options.DECODE_THREADS = 0
pillow_heif.options.THUMBNAILS = pillow_heif.options.DEPTH_IMAGES = pillow_heif.options.AUX_IMAGES = False


def read(data: bytes, max_pixels: int) -> Raster:
    """Read a HEIC or HEIF file. Raises TooManyPixels, UnsupportedImage, or an error of DAMAGE."""
    try:
        file = pillow_heif.open_heif(data, convert_hdr_to_8bit=False)
        width, height = file.size
        check_pixels(width, height, max_pixels)
        samples: Samples = channels_last(np.asarray(file))
    except (RuntimeError, ValueError) as error:
        if "nsupported" not in str(error):
            raise
        raise UnsupportedImage(f"This HEIF file is of a kind that is not supported ({error}); send JPEG.") from error
    icc = colour.of_container(data, file.info.get("icc_profile"))
    return Raster(straight(samples) if file.premultiplied_alpha else samples, "webp", icc)
