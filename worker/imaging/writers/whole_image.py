"""Collects the rows of a result for formats that are written by a library from the whole image, in memory.

JPEG has quality 95 without chroma subsampling; WebP has quality 90, or is lossless if the input is a lossless WebP;
AVIF and JPEG XL have modules of their own. Another quality is used on request.
"""

import io
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from upres.core.schema import OutputFormat
from upres.worker.imaging.metadata import IPTC
from upres.worker.imaging.picture import Picture
from upres.worker.imaging.result_file import ResultFile
from upres.worker.imaging.writers import avif, jxl
from upres.worker.imaging.writers.refusals import refused_by
from upres.worker.imaging.writers.rows import as_in_file
from upres.worker.samples import Samples

JPEG_QUALITY, WEBP_QUALITY = 95, 90
LOSSLESS_WEBP = {"lossless": True, "quality": 20, "method": 1}
"""Without loss `quality` is the effort: by measurement more makes the file hardly smaller, and takes much longer."""


class WholeImageEncoder:
    """An Encoder (imaging/encode.py) that gives the whole image to the library of its format."""

    def __init__(self, picture: Picture, output: ResultFile, sink: Callable[[bytes], object]) -> None:
        self._picture, self._output, self._sink = picture, output, sink
        channels = picture.channels + (picture.alpha is not None)
        width, height = output.size
        self._pixels = np.empty((height, width, channels), np.uint8 if output.depth == 8 else np.uint16)
        self._row = 0

    def write(self, band: Samples) -> None:
        """See Encoder."""
        self._pixels[self._row : self._row + len(band)] = as_in_file(band, self._picture)
        self._row += len(band)

    def finish(self) -> None:
        """See Encoder."""
        with refused_by(self._output.format):
            file = WRITERS[self._output.format](self._pixels, self._picture, self._output)
        self._sink(file)


def _jpeg(pixels: Samples, picture: Picture, output: ResultFile) -> bytes:
    image, kept, file = _image(pixels), picture.metadata, io.BytesIO()
    if image.mode in ("LA", "RGBA"):
        image = _on_white(image)
    more: dict[str, Any] = {"exif": b"Exif\0\0" + kept.exif} if kept.exif else {}
    more |= {"xmp": kept.xmp} if kept.xmp else {}
    more |= {"dpi": kept.dpi} if kept.dpi else {}
    more |= {"quality": output.quality or JPEG_QUALITY, "extra": _iptc(kept.iptc)}
    image.save(file, "JPEG", subsampling=0, icc_profile=picture.icc, **more)
    return file.getvalue()


def _webp(pixels: Samples, picture: Picture, output: ResultFile) -> bytes:
    kept, file = picture.metadata, io.BytesIO()
    how = webp_options(output)
    _image(pixels).save(file, "WEBP", icc_profile=picture.icc or b"", exif=kept.exif, xmp=kept.xmp, **how)
    return file.getvalue()


def webp_options(output: ResultFile) -> dict[str, Any]:
    """Return Pillow's options for a WebP file, still or moving."""
    return LOSSLESS_WEBP if output.lossless else {"method": 2, "quality": output.quality or WEBP_QUALITY}


Writer = Callable[[Samples, Picture, ResultFile], bytes]
WRITERS: dict[OutputFormat, Writer] = {
    "jpeg": _jpeg,
    "webp": _webp,
    "avif": avif.write,
    "jxl": jxl.write,
}


def _image(pixels: Samples) -> Image.Image:
    return Image.fromarray(pixels.squeeze(axis=2) if pixels.shape[2] == 1 else pixels)


def _iptc(data: bytes) -> bytes:
    """Return the segment of a JPEG file with IPTC data, as a resource of Photoshop."""
    if not data:
        return b""
    resource = b"8BIM" + struct.pack(">HHI", IPTC, 0, len(data)) + data + bytes(len(data) % 2)
    content = b"Photoshop 3.0\0" + resource
    return b"\xff\xed" + struct.pack(">H", len(content) + 2) + content


def _on_white(image: Image.Image) -> Image.Image:
    """Lay an image with alpha on a white background."""
    opaque = image.convert(image.mode.removesuffix("A"))
    return Image.composite(opaque, Image.new(opaque.mode, image.size, "white"), image.getchannel("A"))
