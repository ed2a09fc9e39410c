"""Decodes an image file to pixels. This table says what it does with each property of an image:

kept       16 bits (in PNG, TIFF and JPEG XL results), alpha, grayscale, ICC profile of RGB; WebP without loss; all
           frames and pages; metadata on request (metadata.py)
applied    orientation, as viewers do; colours that a file describes by numbers, as an ICC profile (colour.py)
changed    gray profile → sRGB; palette → RGB or RGBA; CMYK → RGB through its profile, which is dropped; colours where
           alpha is 0 → those beside them (transparency.py); frames of an animation → all that is visible during each
           (canvas.py); animated AVIF, HEIC and JPEG XL → first frame; alpha in a JPEG result → white
refused    before decoding: other formats, too many pixels, HDR; after it: a result larger than its format allows

What is special to a kind is said in its module below readers/.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError

from upres.core.errors import ImageError, NotAnImage, TooManyPixels, TruncatedImage, UnsupportedImage
from upres.core.formats import Holds, Several
from upres.core.schema import WantedMetadata
from upres.core.sizes import AS_IT_IS, WantedSize
from upres.worker.imaging import jxl_header, metadata
from upres.worker.imaging.kinds import NAMED, is_sequence, kind_of
from upres.worker.imaging.picture import Picture, Pictures, picture, pictures
from upres.worker.imaging.raster import Raster, Rasters
from upres.worker.imaging.readers import (
    apng,
    avif,
    bmp,
    gif,
    heif,
    jpeg,
    jpeg2000,
    jxl,
    pillow,
    png,
    tiff,
    webp,
)

EVERYTHING = Holds(frames=True, pages=True)


class SeveralReader(NamedTuple):
    """How the frames or pages of a kind of file are read."""

    several: Several
    has_several: Callable[[bytes], bool]
    """Whether a file has more than one, or may have had more, or its only one is not what `read` returns."""
    count: Callable[[bytes], int]
    """Returns how many a file has; none is counted after the second one."""
    read_all: Callable[[bytes, int], Rasters | None]
    """Returns None when not even the first is sound."""


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
"""Kind of a file → what reads its first frame or page."""
SEVERAL_READERS: dict[str, SeveralReader] = {
    "PNG": SeveralReader("frames", apng.has_several, apng.count, apng.read_all),
    "WebP": SeveralReader("frames", webp.has_several, webp.count, webp.read_all),
    "GIF": SeveralReader("frames", gif.has_several, gif.count, gif.read_all),
    "TIFF": SeveralReader("pages", tiff.has_several, tiff.count, tiff.read_all),
}
"""Kinds of files that may have several frames or pages, which are read."""


def decode(data: bytes, max_pixels: int, wanted: WantedMetadata = "strip", size: WantedSize = AS_IT_IS) -> Picture:
    """Decode the first frame of an image file, with the wanted metadata for a result of the wanted size.

    Raises what `read` raises, or NotAnEnlargement.
    """
    made = picture(read(data, max_pixels))
    return replace(made, metadata=metadata.read(data, wanted, size.of(made.size)))


def decode_all(
    data: bytes,
    max_pixels: int,
    wanted: WantedMetadata = "strip",
    size: WantedSize = AS_IT_IS,
    holds: Holds = EVERYTHING,
) -> Pictures:
    """Decode all frames or pages of an image file, if the result can hold them; else the first.

    The metadata is that of the first. Raises what `read` raises.
    """
    kind = kind_of(data)
    found, left_out = None, None
    with _damage_named(data, max_pixels):
        reader = SEVERAL_READERS.get(kind or "")
        if reader and reader.has_several(data):
            if getattr(holds, reader.several):
                found = reader.read_all(data, max_pixels)
            elif reader.count(data) > 1:
                left_out = reader.several
    if found is None:
        still = Pictures((decode(data, max_pixels, wanted, size),), left_out=left_out)
        return (
            still.noticed(f"Animated {kind} is not supported; this is its first frame.")
            if _moves(data, kind)
            else still
        )
    made = pictures(found)
    first = replace(made.first, metadata=metadata.read(data, wanted, size.of(made.first.size)))
    return replace(made, frames=(first, *made.frames[1:]))


def read(data: bytes, max_pixels: int) -> Raster:
    """Decode the first frame of an image file, upright, to samples as the file has them.

    Raises NotAnImage, UnsupportedImage, TooManyPixels (after reading only the header) or TruncatedImage.
    """
    kind = kind_of(data)
    if kind not in READERS:
        raise _unreadable(data, kind)
    with _damage_named(data, max_pixels):
        raster = READERS[kind](data, max_pixels)
        if raster.samples.size == 0:
            raise ValueError("it has no pixels")
        return raster


def _moves(data: bytes, kind: str | None) -> bool:
    """Return whether a file is an animation of a kind of which only the first frame is read."""
    return is_sequence(data) or (kind == "JPEG XL" and jxl_header.header(data).animated)


@contextmanager
def _damage_named(data: bytes, max_pixels: int) -> Iterator[None]:
    """Turn the errors of libraries in the block into errors of upres."""
    kind = kind_of(data)
    try:
        yield
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
