"""Image formats: content types, file extensions and size limits; and the check of an image's number of pixels."""

from upres.core.errors import FormatLimit, TooManyPixels
from upres.core.schema import Depth, OutputFormat, WantedDepth, WantedFormat

CONTENT_TYPES: dict[OutputFormat, str] = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}
EXTENSIONS: dict[OutputFormat, str] = {"png": "png", "jpeg": "jpg", "webp": "webp"}
MAX_SIDE: dict[OutputFormat, int] = {"png": 2**31 - 1, "jpeg": 65500, "webp": 16383}
"""Longest side in pixels. Sources: the PNG specification; libjpeg's JPEG_MAX_DIMENSION; the 14 bits of VP8."""

DEEP = ("auto", "png")
"""Values of output_format that allow 16 bits per sample."""


def result_format(wanted: WantedFormat, own: OutputFormat, depth: WantedDepth) -> OutputFormat:
    """Return the format of a result; `own` is what it is when the request says `auto`."""
    if wanted != "auto":
        return wanted
    return "png" if depth == 16 else own


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
        raise FormatLimit(
            f"The result would be {size[0]}×{size[1]} pixels, but {format} allows at most {MAX_SIDE[format]} "
            "per side; ask for output_format png or a smaller factor."
        )
