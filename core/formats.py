"""Image formats: content types, file extensions and size limits; and the check of an image's number of pixels."""

from upres.core.errors import FormatLimit, TooManyPixels
from upres.core.schema import OutputFormat

CONTENT_TYPES: dict[OutputFormat, str] = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}
EXTENSIONS: dict[OutputFormat, str] = {"png": "png", "jpeg": "jpg", "webp": "webp"}
MAX_SIDE: dict[OutputFormat, int] = {"png": 2**31 - 1, "jpeg": 65500, "webp": 16383}
"""Longest side in pixels. Sources: the PNG specification; libjpeg's JPEG_MAX_DIMENSION; the 14 bits of VP8."""


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
