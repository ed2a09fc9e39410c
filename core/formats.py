"""Image formats: content types, file extensions and size limits; and the check of an image's number of pixels."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from upres.core.errors import FormatLimit, ImageError, TooManyPixels
from upres.core.schema import Depth, OutputFormat, WantedDepth, WantedFormat

Several = Literal["frames", "pages"]

CONTENT_TYPES: dict[OutputFormat, str] = {
    "png": "image/png",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "avif": "image/avif",
    "jxl": "image/jxl",
    "tiff": "image/tiff",
    "gif": "image/gif",
}
EXTENSIONS: dict[OutputFormat, str] = {
    "png": "png",
    "jpeg": "jpg",
    "webp": "webp",
    "avif": "avif",
    "jxl": "jxl",
    "tiff": "tif",
    "gif": "gif",
}
SPELLINGS = {"jpg": "jpeg", "tif": "tiff"}
"""Other names of formats, which users often write."""
MAX_SIDE: dict[OutputFormat, int] = {
    "png": 2**31 - 1,
    "jpeg": 65500,
    "webp": 16383,
    "avif": 32768,
    "jxl": 2**18,
    "tiff": 2**31 - 1,
    "gif": 65535,
}
"""Longest side in pixels. Sources: the PNG specification; libjpeg's JPEG_MAX_DIMENSION; the 14 bits of VP8; libavif's
AVIF_DEFAULT_IMAGE_DIMENSION_LIMIT, above which it decodes nothing; level 5 of JPEG XL's main profile (ISO/IEC 18181-1,
Annex M), which all decoders have; the 32 bits of TIFF 6.0, which readers take as signed; the 16 bits of GIF89a."""
MAX_PIXELS: dict[OutputFormat, int] = {"avif": 2**28, "jxl": 2**28}
"""Largest number of pixels. Sources: libavif's AVIF_DEFAULT_IMAGE_SIZE_LIMIT; level 5 of JPEG XL's main profile."""
MOVING: tuple[OutputFormat, ...] = ("gif", "webp", "png")
"""Formats whose files can be animations."""
PAGED: tuple[OutputFormat, ...] = ("tiff",)
"""Formats whose files can have several pages."""
NAMES: dict[OutputFormat, str] = {
    "png": "PNG",
    "jpeg": "JPEG",
    "webp": "WebP",
    "avif": "AVIF",
    "jxl": "JPEG XL",
    "tiff": "TIFF",
    "gif": "GIF",
}
MAX_FRAMES = 1000
"""Largest number of frames or pages of one file."""

DEEP = ("auto", "png", "tiff", "jxl")
"""Values of output_format that allow 16 bits per sample."""
WITH_QUALITY = ("auto", "jpeg", "webp", "avif", "jxl")
"""Values of output_format that have a quality."""
ALWAYS_LOSSLESS = ("png", "tiff")
"""Values of output_format whose results are always without loss."""
MAYBE_LOSSLESS = ("auto", "png", "webp", "jxl", "tiff")
"""Values of output_format that can be lossless; auto becomes PNG where the format of the image cannot."""


class Holds(NamedTuple):
    """Whether a result can have several frames, and several pages."""

    frames: bool
    pages: bool


def holds(wanted: WantedFormat) -> Holds:
    """Return what a result of a requested format can have. `auto` chooses a format that can have what the image has."""
    if wanted == "auto":
        return Holds(bool(MOVING), bool(PAGED))
    return Holds(wanted in MOVING, wanted in PAGED)


def cannot_hold(several: Several, format: OutputFormat) -> str:
    """Return the sentence for the user when a result in this format has the first frame or page only."""
    able = MOVING if several == "frames" else PAGED
    lacks = "move" if several == "frames" else "have several pages"
    instead = f" Ask for {', '.join(able[:-1])}{' or ' if able[1:] else ''}{able[-1]}." if able else ""
    return f"{NAMES[format]} cannot {lacks}; the result is the first {several[:-1]}.{instead}"


def result_format(
    wanted: WantedFormat, own: OutputFormat, depth: WantedDepth, lossless: bool | None = None
) -> OutputFormat:
    """Return the format of a result; `own` is what it is when the request says `auto` and the format suffices."""
    if wanted != "auto":
        return wanted
    too_flat = depth == 16 and own not in DEEP
    return "png" if too_flat or (lossless and own not in MAYBE_LOSSLESS) else own


def result_depth(wanted: WantedDepth, own: Depth, format: OutputFormat) -> Depth:
    """Return the bits of a sample of a result; `own` are those of the image."""
    return 16 if format in DEEP and (own if wanted == "auto" else wanted) == 16 else 8


def check_pixels(width: int, height: int, most: int) -> None:
    """Raise TooManyPixels when an image has more than `most` pixels."""
    if width * height > most:
        raise TooManyPixels(
            f"The image has {width}×{height} pixels; at this factor at most "
            f"{most / 1e6:g} megapixels are possible. Send a smaller one."
        )


def check_frames(count: int, width: int, height: int, most: int) -> None:
    """Raise TooManyPixels when an animation of width × height pixels has too many frames, or too many pixels."""
    instead = "Send fewer or smaller frames, or ask for frames: first."
    if count > MAX_FRAMES:
        raise TooManyPixels(f"The file has more than {MAX_FRAMES:,} frames. {instead}")
    if count > 1 and count * width * height > most:
        pixels = f"{count * width * height / 1e6:.1f} megapixels together"
        raise TooManyPixels(
            f"The file has {count:,} frames of {width}×{height}, {pixels}; at this factor "
            f"at most {most / 1e6:g} megapixels are possible. {instead}"
        )
    check_pixels(width, height, most)


def check_pages(sizes: Sequence[tuple[int, int]], most: int) -> None:
    """Raise TooManyPixels when pages of these sizes, (width, height), are too many, or have too many pixels."""
    instead = "Send fewer or smaller pages, or ask for frames: first."
    if len(sizes) > MAX_FRAMES:
        raise TooManyPixels(f"The file has more than {MAX_FRAMES:,} pages. {instead}")
    if (pixels := sum(width * height for width, height in sizes)) > most:
        raise TooManyPixels(
            f"The file has {len(sizes):,} pages, {pixels / 1e6:.1f} megapixels together; at this factor at most "
            f"{most / 1e6:g} megapixels are possible. {instead}"
        )


def of_page(error: ImageError, number: int) -> ImageError:
    """Return the error of a page after the first one, with its number, from 1."""
    return type(error)(f"Page {number}: {error} Or ask for frames: first.")


def check_pictures(sizes: Sequence[tuple[int, int]], animated: bool, most: int) -> None:
    """Raise TooManyPixels when one image, the frames of an animation, or pages of these sizes have too many pixels."""
    if animated:
        check_frames(len(sizes), *sizes[0], most)
    elif len(sizes) > 1:
        check_pages(sizes, most)
    else:
        check_pixels(*sizes[0], most)


def check_size(size: tuple[int, int], format: OutputFormat) -> None:
    """Raise FormatLimit when an image of this size, (width, height) in pixels, does not fit the format."""
    if max(size) > MAX_SIDE[format]:
        raise _too_large(size, format, f"{MAX_SIDE[format]} per side")
    if size[0] * size[1] > (most := MAX_PIXELS.get(format, size[0] * size[1])):
        raise _too_large(size, format, f"{most / 1e6:.0f} megapixels")


def _too_large(size: tuple[int, int], format: OutputFormat, most: str) -> FormatLimit:
    return FormatLimit(
        f"The result would be {size[0]}×{size[1]} pixels, but {format} allows at most {most}; "
        "ask for output_format png or a smaller factor."
    )
