"""Decodes an image file to pixels with Pillow. This table says what it does with each property of an image:

kept       alpha, grayscale, ICC profile
applied    EXIF orientation; then all metadata is dropped
changed    16 bits → 8; palette → RGB or RGBA; CMYK → RGB through its profile, which is dropped;
           animation → first frame; alpha in a JPEG result → white background
refused    before decoding: other formats, too many pixels; after it: a result larger than its format allows
"""

import io
import struct
import zlib
from dataclasses import replace
from typing import cast

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from upres.core.errors import NotAnImage, TooManyPixels, TruncatedImage, UnsupportedImage
from upres.core.formats import check_pixels
from upres.core.schema import OutputFormat, WantedMetadata
from upres.worker.imaging import colour, metadata
from upres.worker.imaging.picture import Picture, picture
from upres.worker.imaging.raster import Raster
from upres.worker.samples import Samples

FORMATS: dict[str, OutputFormat] = {
    "PNG": "png", "JPEG": "jpeg", "MPO": "jpeg", "WEBP": "webp",
    "AVIF": "webp", "TIFF": "png", "BMP": "png", "GIF": "png",
}  # fmt: skip
"""Pillow's name of an input format → format of the result when the request says `auto`."""
OPENED = ("PNG", "JPEG", "WEBP", "AVIF", "TIFF", "BMP", "GIF")
NAMED = "PNG, JPEG, WebP, AVIF, TIFF, BMP or GIF"
MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "I", "I;16", "I;16B", "I;16L", "I;16N"}
SIGNATURES = {
    b"\x89PNG": "PNG", b"\xff\xd8\xff": "JPEG", b"GIF8": "GIF", b"BM": "BMP", b"II*\0": "TIFF",
    b"MM\0*": "TIFF", b"\0\0\0\x0cjP": "JPEG 2000",
    b"\0\0\0\x0cJXL": "JPEG XL", b"\xff\x0a": "JPEG XL", b"%PDF": "PDF", b"<svg": "SVG",
}  # fmt: skip
"""First bytes of a file → name of its format, for the error message when Pillow cannot open it."""


def decode(data: bytes, max_pixels: int, wanted: WantedMetadata = "strip", factor: int = 1) -> Picture:
    """Decode the first frame of an image file for a network that enlarges it by a factor.

    Raises what `read` raises, or UnsupportedImage.
    """
    raster = read(data, max_pixels)
    made = picture(replace(raster, icc=colour.profile(data, raster.icc)))
    size = (made.size[0] * factor, made.size[1] * factor)
    return replace(made, metadata=metadata.read(data, wanted, size))


def read(data: bytes, max_pixels: int) -> Raster:
    """Decode the first frame of an image file, upright, to samples as the file has them.

    Raises NotAnImage, UnsupportedImage, TooManyPixels (after reading only the header) or TruncatedImage.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=OPENED)
    except UnidentifiedImageError:
        raise _unidentified(data) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise TooManyPixels(f"The image has more than {max_pixels / 1e6:g} megapixels; send a smaller one.") from None
    except DAMAGE as error:
        raise TruncatedImage(f"The image is damaged ({error}); send it again, complete.") from error
    with image:
        width, height = image.size
        check_pixels(width, height, max_pixels)
        if image.mode not in MODES:
            raise UnsupportedImage(f"The image has pixels of kind {image.mode}; save it with 8 or 16 bits per channel.")
        try:
            image.load()
            raster = _raster(_upright(image), FORMATS[image.format or ""])
            return replace(raster, lossless=image.format == "WEBP" and _is_lossless_webp(data))
        except DAMAGE as error:
            raise TruncatedImage(f"The image is incomplete or damaged ({error}); send it again, complete.") from error


DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    struct.error,
    zlib.error,
    RuntimeError,
    Image.DecompressionBombError,
)
"""Errors that Pillow's decoders raise on damaged files."""


def _unidentified(data: bytes) -> NotAnImage | UnsupportedImage | TruncatedImage:
    """Return the error that says why Pillow did not recognise the data."""
    kind = next((name for magic, name in SIGNATURES.items() if data.startswith(magic)), None)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        kind = "WEBP"
    elif data[4:8] == b"ftyp":
        kind = {b"avif": "AVIF", b"heic": "HEIC"}.get(data[8:12], "video or HEIF")
    if kind is None:
        return NotAnImage(f"The data is not an image; send a {NAMED} file.")
    if kind in FORMATS:
        return TruncatedImage(f"The {kind} file is incomplete or damaged; send it again, complete.")
    return UnsupportedImage(f"This is a {kind} file; send {NAMED}.")


def _upright(image: Image.Image) -> Image.Image:
    """Turn the image as its EXIF orientation says. Damaged EXIF data is ignored."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # Pillow raises many types for damaged EXIF data; the pixels are intact
        return image


def _raster(image: Image.Image, format: OutputFormat) -> Raster:
    """Convert a loaded image of Pillow."""
    icc = cast("bytes | None", image.info.get("icc_profile"))
    if image.mode == "CMYK":
        image, icc = _from_cmyk(image, icc), None
    if image.mode.startswith("I"):
        return Raster(_sixteen_bits(image), format, icc)
    colours = "L" if image.mode in ("1", "L", "LA") else "RGB"
    samples = np.asarray(image.convert(f"{colours}A" if image.has_transparency_data else colours))
    return Raster(samples if samples.ndim == 3 else samples[..., None], format, icc)


def _is_lossless_webp(data: bytes) -> bool:
    """Return whether the first frame of a WebP file (RFC 9649) is without loss."""
    at = 12
    while at + 8 <= len(data):
        kind, size = struct.unpack_from("<4sI", data, at)
        if kind in (b"VP8L", b"VP8 "):
            return bool(kind == b"VP8L")
        at += 8 + (16 if kind == b"ANMF" else size + size % 2)  # a frame contains chunks itself
    return False


def _sixteen_bits(image: Image.Image) -> Samples:
    """Return the samples of 16-bit grayscale. The one value that a PNG may declare transparent becomes alpha."""
    values = np.asarray(image).clip(0, 65535).astype(np.uint16)
    if "transparency" not in image.info:
        return values[..., None]
    return np.dstack([values, np.where(values == image.info["transparency"], 0, 65535).astype(np.uint16)])


def _from_cmyk(image: Image.Image, icc: bytes | None) -> Image.Image:
    """Convert CMYK to sRGB through the embedded profile; without a usable profile, by Pillow's plain formula."""
    if icc:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(icc))
            target = ImageCms.createProfile("sRGB")
            converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
            if converted is not None:
                return converted
        except ImageCms.PyCMSError:
            return image.convert("RGB")
    return image.convert("RGB")
