"""Image formats: content types, file extensions and size limits; and the check of an image's number of pixels."""

from upres.core.errors import FormatLimit, TooManyPixels
from upres.core.schema import Depth, OutputFormat, WantedDepth, WantedFormat

CONTENT_TYPES: dict[OutputFormat, str] = {
    "png": "image/png",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "avif": "image/avif",
    "jxl": "image/jxl",
    "tiff": "image/tiff",
}
EXTENSIONS: dict[OutputFormat, str] = {
    "png": "png",
    "jpeg": "jpg",
    "webp": "webp",
    "avif": "avif",
    "jxl": "jxl",
    "tiff": "tif",
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
}
"""Longest side in pixels. Sources: the PNG specification; libjpeg's JPEG_MAX_DIMENSION; the 14 bits of VP8; libavif's
AVIF_DEFAULT_IMAGE_DIMENSION_LIMIT, above which it decodes nothing; level 5 of JPEG XL's main profile (ISO/IEC 18181-1,
Annex M), which all decoders have; the 32 bits of TIFF 6.0, which readers take as signed."""
MAX_PIXELS: dict[OutputFormat, int] = {"avif": 2**28, "jxl": 2**28}
"""Largest number of pixels. Sources: libavif's AVIF_DEFAULT_IMAGE_SIZE_LIMIT; level 5 of JPEG XL's main profile."""

DEEP = ("auto", "png", "tiff", "jxl")
"""Values of output_format that allow 16 bits per sample."""
WITH_QUALITY = ("auto", "jpeg", "webp", "avif", "jxl")
"""Values of output_format that have a quality: all others are always lossless."""
MAYBE_LOSSLESS = ("auto", "png", "webp", "jxl", "tiff")
"""Values of output_format that can be lossless; auto becomes PNG where the format of the image cannot."""


def result_format(
    wanted: WantedFormat, own: OutputFormat, depth: WantedDepth, lossless: bool | None = None
) -> OutputFormat:
    """Return the format of a result; `own` is what it is when the request says `auto` and the format suffices."""
    if wanted != "auto":
        return wanted
    return "png" if depth == 16 or (lossless and own not in MAYBE_LOSSLESS) else own


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
