"""Reads JPEG, with 8 bits by Pillow; 12 bits and lossless JPEG by libjpeg-turbo (imagecodecs).

kept       grayscale, ICC profile; 12 and 16 bits
applied    EXIF orientation
changed    CMYK and YCCK → RGB through the profile, which is dropped; several images (MPO) → the first
completed  a file without its last bytes, as browsers do: what is missing becomes gray, with a notice. When more than
           half of the rows is missing, or progressive JPEG has only blurred rows, the file is refused
refused    hierarchical JPEG, CMYK with more than 8 bits; JPEG-LS, because CharLS takes seconds for a small damaged file
"""

import imagecodecs
import numpy as np
from PIL import Image

from upres.core.errors import TruncatedImage, UnsupportedImage
from upres.core.formats import check_pixels
from upres.core.schema import OutputFormat
from upres.worker.imaging.raster import Raster
from upres.worker.imaging.readers import pillow
from upres.worker.imaging.readers.jpeg_segments import Frame, frame, is_only_coarse
from upres.worker.imaging.readers.samples import channels_last, full_range, upright
from upres.worker.samples import Samples

COMMON = {0xC0, 0xC1, 0xC2, 0xC9, 0xCA}
"""Frames that libjpeg reads: baseline, extended, progressive; the last two with arithmetic coding."""
PROGRESSIVE = {0xC2, 0xCA}
LOSSLESS, JPEG_LS = 0xC3, 0xF7
END = b"\xff\xd9"
"""The marker at the end of a file. Put behind a cut one, libjpeg takes all that is missing as coefficients of 0."""
GRAY = 128
"""The sample that coefficients of 0 give, in every colour space of JPEG."""
MOST_MISSING = 0.5
"""Largest share of the rows that may be missing."""


def read(data: bytes, max_pixels: int) -> Raster:
    """Read a JPEG file. Raises TooManyPixels, TruncatedImage, UnsupportedImage, or an error of DAMAGE."""
    header = frame(data)
    check_pixels(header.width, header.height, max_pixels)
    if header.marker in COMMON and header.bits == 8:
        return _common(data, header, max_pixels)
    if header.marker not in {*COMMON, LOSSLESS}:
        name = "JPEG-LS" if header.marker == JPEG_LS else "Hierarchical JPEG"
        raise UnsupportedImage(f"{name} is not supported; save the image as common JPEG or PNG.")
    if header.components not in (1, 3):
        raise UnsupportedImage(
            f"JPEG with {header.components} channels of {header.bits} bits is not supported; save the image as RGB."
        )
    format: OutputFormat = "jpeg" if header.bits == 8 and header.marker in COMMON else "png"
    samples = full_range(_precise(data, header), header.bits)
    return Raster(upright(samples, pillow.orientation(header.exif)), format, header.icc)


def _common(data: bytes, header: Frame, max_pixels: int) -> Raster:
    with pillow.opened(data, "JPEG") as image:
        check_pixels(*image.size, max_pixels)
        try:
            image.load()
            return pillow.raster(image, "jpeg")
        except OSError:  # it may be cut only
            pass
    if header.marker in PROGRESSIVE and is_only_coarse(data):
        raise TruncatedImage("The JPEG file is incomplete: only a blurred image has arrived; send it again, complete.")
    return _completed(data)


def _completed(data: bytes) -> Raster:
    """Read a file that lacks its last bytes. Raises TruncatedImage when too much of it is missing."""
    with pillow.opened(data + END, "JPEG") as image:
        image.load()
        missing = _gray_rows(image)
        if missing > MOST_MISSING * image.height:
            raise TruncatedImage(
                f"The JPEG file is incomplete: about {missing} of its {image.height} rows are missing; "
                "send it again, complete."
            )
        raster = pillow.raster(image, "jpeg")
    lost = f"about {missing} of {image.height} rows are missing and gray" if missing else "some details are missing"
    notice = f"The end of the JPEG file is missing, so that {lost}; send it again, complete, for a better result."
    return Raster(raster.samples, raster.format, raster.icc, (*raster.notices, notice))


def _gray_rows(image: Image.Image) -> int:
    """Return how many rows at the bottom are nothing but the gray of missing data."""
    rows = np.asarray(image).reshape(image.height, -1)
    filled = (np.abs(rows.astype(np.int16) - GRAY) > 1).any(axis=1)
    return int(image.height - (np.flatnonzero(filled)[-1] + 1 if filled.any() else 0))


def _precise(data: bytes, header: Frame) -> Samples:
    """Return the samples of lossless JPEG, or JPEG with more than 8 bits, in their own range."""
    samples: Samples = channels_last(imagecodecs.jpeg8_decode(data))
    if samples.shape != (header.height, header.width, header.components):
        raise ValueError("the pixels are not those that the header describes")
    return samples
