"""Encodes pixels to image files: PNG in bands, while the other rows are still computed; JPEG and WebP at the end.

PNG is lossless; JPEG has quality 95 without chroma subsampling; WebP has quality 90, or is lossless if the input is a
lossless WebP. The result keeps grayscale, alpha and ICC profile of the input, as far as the format supports them.
"""

import io
import os
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
from PIL import Image

from upres.core.schema import OutputFormat
from upres.worker.imaging.metadata import IPTC, XMP_KEYWORD
from upres.worker.imaging.picture import Picture
from upres.worker.imaging.png import Chunk, PngWriter, density_chunk, profile_chunk, text_chunk
from upres.worker.samples import Samples

LOSSY_WEBP = {"quality": 90, "method": 2}
LOSSLESS_WEBP = {"lossless": True, "quality": 20, "method": 1}
"""Without loss `quality` is the effort: by measurement more makes the file hardly smaller, and takes much longer."""
LUMA_WEIGHTS = np.array([299, 587, 114], np.uint32)
BAND_ROWS = 1024
"""Number of output rows of the bicubic enlargement that are computed at a time, which limits memory."""


class Encoder(Protocol):
    """Encodes one picture: takes its enlarged rows from top to bottom, and returns the file at the end."""

    def write(self, band: Samples) -> None:
        """Add rows (rows, width·factor, 3), RGB; or (rows, width·factor, 4), if the picture has alpha."""
        ...

    def finish(self) -> bytes:
        """Return the file. All rows must be written before."""
        ...


class Encoders:
    """The threads that encode images for all jobs of a worker, which runs at most `jobs` at once."""

    def __init__(self, jobs: int) -> None:
        cores = os.cpu_count() or 1
        self._compressors = ThreadPoolExecutor(cores, thread_name_prefix="compress")
        # A pool of its own: background work waits for the compressors, and in the same pool it could deadlock.
        self._background = ThreadPoolExecutor(jobs, thread_name_prefix="background")

    def open(self, picture: Picture, factor: int, format: OutputFormat) -> Encoder:
        """Open an encoder for the enlargement of a picture."""
        if format == "png":
            return _PngEncoder(picture, factor, self._compressors)
        return _WholeImageEncoder(picture, factor, format)

    def original(
        self, picture: Picture, factor: int, format: OutputFormat, deliver: Callable[[bytes], object]
    ) -> "Future[object]":
        """Enlarge a picture by bicubic interpolation, encode it, and pass the file to `deliver`, in the background."""
        return self.background(lambda: deliver(self._encode_bicubic(picture, factor, format)))

    def background(self, work: Callable[[], object]) -> "Future[object]":
        """Run a function in a background thread, beside the enlargement."""
        return self._background.submit(work)

    def png(self, rows: Samples) -> bytes:
        """Encode rows (rows, width, 3 or 4) as a PNG file."""
        height, width, channels = rows.shape
        writer = PngWriter(width, height, channels, self._compressors, depth=rows.itemsize * 8)
        writer.write(rows)
        return writer.finish()

    def close(self) -> None:
        """Wait for all work, and end the threads."""
        self._background.shutdown()
        self._compressors.shutdown()

    def _encode_bicubic(self, picture: Picture, factor: int, format: OutputFormat) -> bytes:
        encoder = self.open(picture, factor, format)
        for band in bicubic(picture.pixels, factor):
            encoder.write(band)
        return encoder.finish()


def bicubic(pixels: Samples, factor: int) -> Iterator[Samples]:
    """Enlarge an image (height, width, 3 or 4) by Pillow's bicubic interpolation, and yield bands of rows.

    The pixels may differ by at most 2 of 255 from those of the whole image enlarged at once: Pillow chooses the order
    of its horizontal and vertical pass by the size of a band, and rounds between them.
    """
    if pixels.dtype == np.uint16:
        yield from _deep_bicubic(pixels, factor)
        return
    # With the mode RGBA, Pillow would multiply the colours by alpha: rounding makes them wrong where alpha is small.
    mode, size = ("RGBX" if pixels.shape[2] == 4 else "RGB"), (pixels.shape[1], pixels.shape[0])
    image = Image.frombuffer(mode, size, np.ascontiguousarray(pixels), "raw", mode, 0, 1)
    step = BAND_ROWS // factor
    for top in range(0, image.height, step):
        bottom = min(top + step, image.height)
        size = (image.width * factor, (bottom - top) * factor)
        # With `box`, the filter also reads pixels outside the band, so that there are no seams between bands.
        yield np.asarray(image.resize(size, Image.Resampling.BICUBIC, box=(0, top, image.width, bottom)))


def _deep_bicubic(pixels: Samples, factor: int) -> Iterator[Samples]:
    """Enlarge an image of 16 bits as `bicubic` does."""
    planes = [Image.fromarray(pixels[..., channel].astype(np.float32)) for channel in range(pixels.shape[2])]
    width, step = pixels.shape[1], BAND_ROWS // factor
    for top in range(0, len(pixels), step):
        bottom = min(top + step, len(pixels))
        size, box = (width * factor, (bottom - top) * factor), (0, top, width, bottom)
        bands = [np.asarray(plane.resize(size, Image.Resampling.BICUBIC, box=box)) for plane in planes]
        yield np.dstack([np.rint(band).clip(0, 65535).astype(np.uint16) for band in bands])


class _PngEncoder:
    """Encodes PNG while rows are written."""

    def __init__(self, picture: Picture, factor: int, compressors: Executor) -> None:
        width, height = picture.size
        self._picture = picture
        channels = picture.channels + (picture.alpha is not None)
        size = (width * factor, height * factor)
        self._writer = PngWriter(*size, channels, compressors, _chunks(picture), picture.depth)

    def write(self, band: Samples) -> None:
        self._writer.write(np.ascontiguousarray(_as_in_file(band, self._picture)))

    def finish(self) -> bytes:
        return self._writer.finish()


class _WholeImageEncoder:
    """Encodes JPEG or WebP with Pillow, which needs the whole image in memory."""

    def __init__(self, picture: Picture, factor: int, format: OutputFormat) -> None:
        width, height = picture.size
        self._picture, self._format = picture, format
        channels = picture.channels + (picture.alpha is not None)
        self._pixels = np.empty((height * factor, width * factor, channels), np.uint8)
        self._row = 0

    def write(self, band: Samples) -> None:
        self._pixels[self._row : self._row + len(band)] = _as_in_file(band, self._picture)
        self._row += len(band)

    def finish(self) -> bytes:
        out, kept, icc = io.BytesIO(), self._picture.metadata, self._picture.icc
        image = Image.fromarray(self._pixels.squeeze(axis=2) if self._pixels.shape[2] == 1 else self._pixels)
        if self._format == "jpeg":
            if image.mode in ("LA", "RGBA"):
                image = _on_white(image)
            more: dict[str, Any] = {"exif": b"Exif\0\0" + kept.exif} if kept.exif else {}
            more |= {"xmp": kept.xmp} if kept.xmp else {}
            more |= {"dpi": kept.dpi} if kept.dpi else {}
            image.save(out, "JPEG", quality=95, subsampling=0, icc_profile=icc, extra=_iptc(kept.iptc), **more)
        else:
            how = LOSSLESS_WEBP if self._picture.lossless else LOSSY_WEBP
            image.save(out, "WEBP", icc_profile=icc or b"", exif=kept.exif, xmp=kept.xmp, **how)
        return out.getvalue()


def _chunks(picture: Picture) -> list[Chunk]:
    """Return the chunks before the pixels of a PNG file: profile and metadata."""
    kept = picture.metadata
    chunks = [profile_chunk(picture.icc)] if picture.icc else []
    chunks += [density_chunk(kept.dpi)] if kept.dpi else []
    chunks += [(b"eXIf", kept.exif)] if kept.exif else []
    chunks += [text_chunk(XMP_KEYWORD, kept.xmp.decode(errors="ignore"))] if kept.xmp else []
    return chunks + [text_chunk(*one) for one in kept.texts]


def _iptc(data: bytes) -> bytes:
    """Return the segment of a JPEG file with IPTC data, as a resource of Photoshop."""
    if not data:
        return b""
    resource = b"8BIM" + struct.pack(">HHI", IPTC, 0, len(data)) + data + bytes(len(data) % 2)
    content = b"Photoshop 3.0\0" + resource
    return b"\xff\xed" + struct.pack(">H", len(content) + 2) + content


def _as_in_file(band: Samples, picture: Picture) -> Samples:
    """Convert a band of RGB, and alpha, to the channels of the result's file: (rows, width, channels)."""
    if not picture.gray:
        return band
    return np.concatenate([_luma(band)[..., None]] * picture.channels + [band[..., 3:]], axis=2)


def _luma(band: Samples) -> Samples:
    """Convert RGB to the luma of ITU-R BT.601: (rows, width)."""
    if band.dtype == np.uint8:
        return np.asarray(Image.fromarray(band[..., :3]).convert("L"))
    luma = np.empty(band.shape[:2], np.uint16)
    for row, pixels in zip(luma, band, strict=True):  # row by row, because it takes 20 bytes a pixel
        row[:] = (pixels[:, :3].astype(np.uint32) @ LUMA_WEIGHTS + 500) // 1000
    return luma


def _on_white(image: Image.Image) -> Image.Image:
    """Lay an image with alpha on a white background."""
    opaque = image.convert(image.mode.removesuffix("A"))
    return Image.composite(opaque, Image.new(opaque.mode, image.size, "white"), image.getchannel("A"))
