"""Reads TIFF and BigTIFF by tifffile and the codecs of imagecodecs.

kept       16 bits (more become 16, fewer than 8 become 8), floating point from 0 to 1 as 16 bits, alpha, grayscale,
           ICC profile
applied    orientation (tag 274); WhiteIsZero is inverted; premultiplied alpha is divided out
changed    palette → RGB; CMYK → RGB through its profile, which is dropped; CIE L*a*b* → RGB; YCbCr → RGB;
           pages that are thumbnails or masks are left out (tiff_pages.py); channels beyond colours and alpha, too
refused    raw files of cameras, signed integers, other floating-point numbers, other colour spaces, missing strips
"""

import io
import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import imagecodecs
import numpy as np
import numpy.typing as npt
from PIL import Image
from tifffile import TIFF, TiffFile, TiffPage

from upres.core.errors import ImageError, TruncatedImage, UnsupportedImage
from upres.core.formats import MAX_FRAMES, check_pages, check_pixels, of_page
from upres.worker.imaging.raster import Raster, Rasters
from upres.worker.imaging.readers import pillow
from upres.worker.imaging.readers.samples import full_range, of_floats, straight, upright
from upres.worker.imaging.readers.tiff_pages import main_page, pages
from upres.worker.imaging.readers.to_srgb import rgb_of_cmyk, rgb_of_lab
from upres.worker.samples import Samples

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it logs what is odd in a file

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR, CIE_LAB, ICC_LAB = 0, 1, 2, 3, 5, 6, 8, 9
COLOURS = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, PALETTE: 1, CMYK: 4, YCBCR: 3, CIE_LAB: 3, ICC_LAB: 3}
"""PhotometricInterpretation → number of channels without extra ones."""
ASSOCIATED, UNASSOCIATED = 1, 2
"""Values of ExtraSamples: alpha that the colours were multiplied with, and alpha that they were not."""
INK_SET, NOT_CMYK = 332, 2
JPEG = 7
"""Compression: tifffile makes RGB of YCbCr in JPEG, but of no other YCbCr."""
JPEG_END = b"\xff\xd9"
COMPRESSIONS = {
    *(1, 2, 3, 4, 5, 8, 32773, 32946),  # none; CCITT RLE, T.4 and T.6; LZW; deflate; PackBits; deflate
    *(6, JPEG, 33003, 33005, 34712, 50001, 50002, 52546),  # JPEG of 1992; JPEG; JPEG 2000; WebP; JPEG XL
    *(34887, 34925, 50000),  # LERC; LZMA; Zstandard
}
"""The compressions that are read; tifffile knows many more, which only scientific and raw files have."""
PREDICTORS = (2, 3)
"""Differences of integers, and of floating-point numbers."""
ORIENTATION = 274
SMALL_TILE = 1 << 22
"""Pixels that a tile may have although the image has fewer."""
MOST_EXTRA = 4
"""Channels beyond the colours that a page may have."""
UNSIGNED, FLOAT = 1, 3
"""Values of SampleFormat."""


Value = TypeVar("Value")


class Channels(NamedTuple):
    """The channels of a page."""

    colours: npt.NDArray[Any]
    """(height, width, channels)."""
    alpha: npt.NDArray[Any] | None
    premultiplied: bool


def load_codecs() -> None:
    """Load the libraries of all compressions, which otherwise are loaded when a file needs them."""
    for number in COMPRESSIONS - {1}:
        TIFF.DECOMPRESSORS[number]
    _ = imagecodecs.tiff_decode
    for number in PREDICTORS:
        TIFF.UNPREDICTORS[number]


def read(data: bytes, max_pixels: int) -> Raster:
    """Read the first page of a TIFF file. Raises TooManyPixels, TruncatedImage or UnsupportedImage."""
    with _opened(data) as tiff:
        page = main_page(tiff)
        check_pixels(page.imagewidth, page.imagelength, max_pixels)
        return _raster(data, page, max_pixels)


def has_several(data: bytes) -> bool:
    """Return whether a TIFF file has more than one page that is no thumbnail or mask. Raises what `read` raises."""
    return count(data) > 1


def count(data: bytes) -> int:
    """Return the number of such pages, of which two are counted. Raises what `read` raises."""
    with _opened(data) as tiff:
        return len(pillow.until_damage(_each(pages(tiff, 2)))[0])


def read_all(data: bytes, max_pixels: int) -> Rasters | None:
    """Read all pages; None if the first is damaged. Raises what `read` raises."""
    with _opened(data) as tiff:
        found, whole = pillow.until_damage(_each(pages(tiff, MAX_FRAMES + 1)))
        check_pages([(page.imagewidth, page.imagelength) for page in found], max_pixels)
        rasters, sound = pillow.until_damage(_each(_rasters(data, found, max_pixels)))
    if len(rasters) > 1:
        rasters = [replace(raster, format="tiff") for raster in rasters]
    return Rasters.of(rasters, complete=whole and sound) if rasters else None


def _rasters(data: bytes, found: Sequence[TiffPage], max_pixels: int) -> Iterator[Raster]:
    """Yield the pages. Raises what `read` raises; what is not supported names the page if it is not the first."""
    for number, page in enumerate(found, 1):
        try:
            yield _raster(data, page, max_pixels)
        except UnsupportedImage as error:
            if number == 1:
                raise
            raise of_page(error, number) from error


@contextmanager
def _opened(data: bytes) -> Iterator[TiffFile]:
    """Open a TIFF file for the block."""
    with _damage_named(), TiffFile(io.BytesIO(data)) as tiff:
        yield tiff


@contextmanager
def _damage_named() -> Iterator[None]:
    """Turn the errors of tifffile in the block, which are of many types, into TruncatedImage."""
    try:
        yield
    except (ImageError, MemoryError):
        raise
    except Exception as error:
        raise TruncatedImage(f"The TIFF file is incomplete or damaged ({error}); send it again, complete.") from error


def _each(values: Iterator[Value]) -> Iterator[Value]:
    """Yield the same values, with errors as of `_damage_named`."""
    with _damage_named():
        yield from values


def _raster(data: bytes, page: TiffPage, max_pixels: int) -> Raster:
    _check_kind(page)
    if page.photometric == YCBCR and page.compression != JPEG:
        return Raster(_by_libtiff(data, page), "png", page.iccprofile)
    _check_segments(page, data, max_pixels)
    channels = _channels(page, _decoded(page))
    colours, notices = _shown(page, channels.colours)
    samples = colours
    if channels.alpha is not None:
        alpha = _scaled(page, channels.alpha)
        if alpha.dtype != colours.dtype:  # CMYK and L*a*b* become 8 bits
            alpha = (alpha >> 8).astype(np.uint8)
        samples = np.concatenate([colours, alpha[..., None]], axis=2)
    samples = straight(samples) if channels.premultiplied else samples
    icc = page.iccprofile if page.photometric not in (CMYK, CIE_LAB, ICC_LAB) else None
    return Raster(upright(samples, _orientation(page)), "png", icc, notices)


def _check_kind(page: TiffPage) -> None:
    """Raise UnsupportedImage, which names the kind, for a page that could not be shown rightly."""
    if what := _unknown_colours(page) or _unknown_numbers(page):
        raise UnsupportedImage(
            f"TIFF with {what} is not supported; save it as RGB or gray with 8 or 16 bits per channel."
        )


def _unknown_colours(page: TiffPage) -> str | None:
    """Return what is not known about the channels of a page and how they are stored, or None."""
    if page.photometric not in COLOURS:
        return f"the colour space {_name(page.photometric)}"
    if page.photometric == CMYK and (page.tags.valueof(INK_SET, 1) == NOT_CMYK or page.samplesperpixel < 4):
        return "other inks than CMYK"
    if page.samplesperpixel > COLOURS[page.photometric] + MOST_EXTRA:
        return f"{page.samplesperpixel} channels per pixel"
    if page.compression not in COMPRESSIONS:
        return f"the compression {_name(page.compression)}"
    return "volumes" if page.imagedepth != 1 else None


def _unknown_numbers(page: TiffPage) -> str | None:
    """Return what is not known about the samples of a page, or None."""
    bits, kind = page.bitspersample, page.sampleformat
    if not isinstance(bits, int) or page.dtype is None or kind not in (UNSIGNED, FLOAT):
        return f"samples of {bits} bits and format {_name(kind)}"
    if kind == UNSIGNED and bits > 32:
        return f"{bits} bits per channel"
    if kind == FLOAT and page.photometric not in (BLACK_IS_ZERO, WHITE_IS_ZERO, RGB):
        return "floating-point numbers that are not RGB or gray"
    return None


def _name(value: object) -> str:
    return str(getattr(value, "name", value))


def _check_segments(page: TiffPage, data: bytes, max_pixels: int) -> None:
    """Raise TruncatedImage when a strip or tile is not in the file, or JPEG in one is cut: it would be black or gray.

    Raises UnsupportedImage when tiles are much larger than the image.
    """
    if page.is_tiled and page.tilewidth * page.tilelength > max(max_pixels, SMALL_TILE):
        raise UnsupportedImage("TIFF with tiles larger than the image is not supported; save it without tiles.")
    places = list(zip(page.dataoffsets, page.databytecounts, strict=False))
    if len(places) < math.prod(page.chunked) or any(
        start <= 0 or count <= 0 or start + count > len(data) for start, count in places
    ):
        raise TruncatedImage("The TIFF file is incomplete (strips or tiles are missing); send it again, complete.")
    if page.compression == JPEG and not all(
        data[start : start + count].rstrip(b"\0").endswith(JPEG_END) for start, count in places
    ):
        raise TruncatedImage("The TIFF file is incomplete (the JPEG data in it is cut); send it again, complete.")


def _decoded(page: TiffPage) -> npt.NDArray[Any]:
    """Return all channels of a page: (height, width, channels)."""
    planes, _, height, width, channels = page.shaped
    assert page.dtype
    result = np.empty((height, width, planes, channels), page.dtype)
    for values, (plane, _, top, left, _), _ in page.segments(maxworkers=1):
        if values is None or values.dtype.itemsize != page.dtype.itemsize:
            raise ValueError("a strip or tile does not hold what the page describes")
        rows, columns = min(height - top, values.shape[1]), min(width - left, values.shape[2])
        result[top : top + rows, left : left + columns, plane] = values[0, :rows, :columns]
    return result.reshape(height, width, planes * channels)


def _channels(page: TiffPage, values: npt.NDArray[Any]) -> Channels:
    """Sort the channels of a page into colours and alpha. Without ExtraSamples, an additional channel is alpha."""
    count = COLOURS[page.photometric]
    extra = [int(kind) for kind in page.extrasamples] or [UNASSOCIATED]
    found = next((n for n, kind in enumerate(extra) if kind in (ASSOCIATED, UNASSOCIATED)), None)
    if found is None or count + found >= values.shape[2]:
        return Channels(values[..., :count], None, False)
    return Channels(values[..., :count], values[..., count + found], extra[found] == ASSOCIATED)


def _scaled(page: TiffPage, values: npt.NDArray[Any]) -> Samples:
    return of_floats(values) if page.sampleformat == FLOAT else full_range(values, page.bitspersample)


def _shown(page: TiffPage, colours: npt.NDArray[Any]) -> tuple[Samples, tuple[str, ...]]:
    """Convert the colours of a page to gray or RGB. Returns notices too."""
    if page.photometric == PALETTE:
        return _looked_up(page, colours[..., 0]), ()
    samples = _scaled(page, colours)
    if page.photometric == WHITE_IS_ZERO:
        return np.iinfo(samples.dtype).max - samples, ()
    if page.photometric == CMYK:
        image = Image.frombytes("CMYK", samples.shape[1::-1], _bytes(samples).tobytes())
        image, notices = rgb_of_cmyk(image, page.iccprofile)
        return np.asarray(image), notices
    if page.photometric in (CIE_LAB, ICC_LAB):
        lab = _bytes(samples)
        return rgb_of_lab(lab if page.photometric == CIE_LAB else lab ^ np.array([0, 128, 128], np.uint8)), ()
    return samples, ()


def _bytes(samples: Samples) -> npt.NDArray[np.uint8]:
    """Return the higher byte of samples with 16 bits."""
    return np.ascontiguousarray(samples if samples.dtype == np.uint8 else (samples >> 8).astype(np.uint8))


def _looked_up(page: TiffPage, numbers: npt.NDArray[Any]) -> Samples:
    """Replace the numbers of a palette's colours with the colours, in 8 bits: more are rarely meant."""
    palette = np.asarray(page.colormap)
    if palette.ndim != 2 or palette.shape[0] != 3 or palette.size == 0:
        raise TruncatedImage("The TIFF file is damaged (it has no palette); send it again.")
    colours = (palette >> 8 if palette.max() > 255 else palette).astype(np.uint8).T  # some programs write bytes
    return np.ascontiguousarray(colours[np.minimum(numbers, len(colours) - 1)])


def _by_libtiff(data: bytes, page: TiffPage) -> Samples:
    """Return YCbCr as upright RGB of 8 bits. libtiff knows subsampling and the JPEG of TIFF before 1995."""
    if page.parent.pages[page.index].offset != page.offset:  # libtiff's numbers know the main pages only
        raise UnsupportedImage("TIFF with YCbCr in a SubIFD is not supported; save it as RGB.")
    samples = imagecodecs.tiff_decode(data, index=page.index, asrgb=True)
    if samples.dtype != np.uint8 or samples.shape[:2] != (page.imagelength, page.imagewidth):
        raise ValueError("the pixels are not those that the header describes")
    stated = _orientation(page)
    if stated in (3, 4, 7, 8):  # libtiff has mirrored already, though it turns nothing
        samples = samples[::-1]
    if stated in (2, 3, 6, 7):
        samples = samples[:, ::-1]
    return upright(samples[..., :3], stated)


def _orientation(page: TiffPage) -> int:
    stated = page.tags.valueof(ORIENTATION, 1)
    return stated if stated in range(1, 9) else 1
