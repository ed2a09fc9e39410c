"""Decodes an image file to pixels. This table says what it does with each property of an image:

kept       16 bits (in PNG results), alpha, grayscale, ICC profile of RGB; WebP without loss; metadata on request
           (metadata.py)
applied    orientation, as viewers do; colours that a file describes by numbers, as an ICC profile (colour.py)
changed    gray profile → sRGB; palette → RGB or RGBA; CMYK → RGB through its profile, which is dropped; colours where
           alpha is 0 → those beside them (transparency.py); animation → first frame; alpha in a JPEG result → white
refused    before decoding: other formats, too many pixels, HDR; after it: a result larger than its format allows

What is special to a kind is said in its module below readers/.
"""

from collections.abc import Callable
from dataclasses import replace

from PIL import Image, UnidentifiedImageError

from upres.core.errors import ImageError, NotAnImage, TooManyPixels, TruncatedImage, UnsupportedImage
from upres.core.schema import WantedMetadata
from upres.core.sizes import AS_IT_IS, WantedSize
from upres.worker.imaging import metadata
from upres.worker.imaging.kinds import NAMED, kind_of
from upres.worker.imaging.picture import Picture, picture
from upres.worker.imaging.raster import Raster
from upres.worker.imaging.readers import avif, bmp, gif, heif, jpeg, jpeg2000, jxl, pillow, png, tiff, webp

READERS: dict[str, Callable[[bytes, int], Raster]] = {
    "PNG": png.read,
    "JPEG": jpeg.read,
    "WebP": webp.read,
    "AVIF": avif.read,
    "HEIC": heif.read,
    "JPEG XL": jxl.read,
    "JPEG 2000": jpeg2000.read,
    "TIFF": tiff.read,
    "BMP": bmp.read,
    "GIF": gif.read,
}
"""Kind of a file → what reads it."""


def decode(data: bytes, max_pixels: int, wanted: WantedMetadata = "strip", size: WantedSize = AS_IT_IS) -> Picture:
    """Decode the first frame of an image file, with the wanted metadata for a result of the wanted size.

    Raises what `read` raises, or NotAnEnlargement.
    """
    made = picture(read(data, max_pixels))
    return replace(made, metadata=metadata.read(data, wanted, size.of(made.size)))


def read(data: bytes, max_pixels: int) -> Raster:
    """Decode the first frame of an image file, upright, to samples as the file has them.

    Raises NotAnImage, UnsupportedImage, TooManyPixels (after reading only the header) or TruncatedImage.
    """
    kind = kind_of(data)
    if kind not in READERS:
        raise _unreadable(data, kind)
    try:
        raster = READERS[kind](data, max_pixels)
        if raster.samples.size == 0:
            raise ValueError("it has no pixels")
        return raster
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):  # Pillow's own limit, 178 megapixels
        raise TooManyPixels(f"The image has more than {max_pixels / 1e6:g} megapixels; send a smaller one.") from None
    except UnidentifiedImageError:  # its text names an object in memory only
        raise TruncatedImage(f"The {kind} file is incomplete or damaged; send it again, complete.") from None
    except pillow.DAMAGE as error:
        raise TruncatedImage(f"The {kind} file is incomplete or damaged ({error}); send it again, complete.") from error


def _unreadable(data: bytes, kind: str | None) -> NotAnImage | UnsupportedImage:
    """Return the error for a file that has no reader."""
    if not data:
        return NotAnImage(f"The file is empty; send a {NAMED} file.")
    if kind is None:
        return NotAnImage(f"The data is not an image; send a {NAMED} file.")
    if kind == "RAW":
        return UnsupportedImage("RAW files of cameras are not supported; export a TIFF or JPEG.")
    return UnsupportedImage(f"This is a {kind} file; send {NAMED}.")
