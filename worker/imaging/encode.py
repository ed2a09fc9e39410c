"""Pixels → image files: PNG in bands while the rest is still being computed, JPEG and WebP by Pillow at the end.

PNG is lossless; JPEG has quality 95 without chroma subsampling, WebP quality 90. Grayscale, alpha and ICC
profile are put back as they were, as far as the format can hold them.
"""

import io
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from upres.core.schema import OutputFormat
from upres.worker.imaging.images import Picture
from upres.worker.imaging.png import PngWriter

Pixels = npt.NDArray[np.uint8]

BAND_ROWS = 1024
"""Rows of the bicubic enlargement that are made at a time."""


class Encoder(Protocol):
    """Takes the enlarged rows of one picture from top to bottom; then there is a file."""

    def write(self, band: Pixels) -> None:
        """Add rows (rows, width·factor, 3), RGB."""
        ...

    def finish(self) -> bytes:
        """The file, when all rows were written."""
        ...


class Encoders:
    """The threads that encode for all jobs of a worker."""

    def __init__(self, jobs: int) -> None:
        cores = os.cpu_count() or 1
        self._compressors = ThreadPoolExecutor(cores, thread_name_prefix="compress")
        # Apart from the compressors, which they wait for.
        self._background = ThreadPoolExecutor(jobs, thread_name_prefix="background")

    def open(self, picture: Picture, factor: int, format: OutputFormat) -> Encoder:
        """An encoder for the enlargement of a picture."""
        if format == "png":
            return _Png(picture, factor, self._compressors)
        return _Whole(picture, factor, format)

    def original(
        self, picture: Picture, factor: int, format: OutputFormat, deliver: Callable[[bytes], object]
    ) -> "Future[object]":
        """Enlarge the picture by bicubic interpolation and deliver the file, all in the background."""
        return self.background(lambda: deliver(self._encode_bicubic(picture, factor, format)))

    def background(self, work: Callable[[], object]) -> "Future[object]":
        """Do something besides the enlargement itself."""
        return self._background.submit(work)

    def png(self, rows: Pixels) -> bytes:
        """Rows (rows, width, 3) as a PNG file."""
        writer = PngWriter(rows.shape[1], rows.shape[0], 3, self._compressors)
        writer.write(rows)
        return writer.finish()

    def close(self) -> None:
        """Wait for what is being encoded."""
        self._background.shutdown()
        self._compressors.shutdown()

    def _encode_bicubic(self, picture: Picture, factor: int, format: OutputFormat) -> bytes:
        encoder = self.open(picture, factor, format)
        for band in bicubic(picture.pixels, factor):
            encoder.write(band)
        return encoder.finish()


def bicubic(pixels: Pixels, factor: int) -> Iterator[Pixels]:
    """An image (height, width, …) enlarged by Pillow's bicubic interpolation, in bands of rows.

    Pillow chooses the order of its two passes by the size of each band, so bands may differ from the
    whole by the rounding between them: at most 2 of 255.
    """
    image = Image.fromarray(pixels)
    step = BAND_ROWS // factor
    for top in range(0, image.height, step):
        bottom = min(top + step, image.height)
        size = (image.width * factor, (bottom - top) * factor)
        # The filter reaches beyond the box, so that bands fit together exactly.
        yield np.asarray(image.resize(size, Image.Resampling.BICUBIC, box=(0, top, image.width, bottom)))


class _Png:
    def __init__(self, picture: Picture, factor: int, compressors: Executor) -> None:
        width, height = picture.size
        self._gray = picture.gray
        self._alpha = _enlarged_alpha(picture, factor)
        self._row = 0
        channels = (1 if self._gray else 3) + (self._alpha is not None)
        self._writer = PngWriter(width * factor, height * factor, channels, compressors, picture.icc)

    def write(self, band: Pixels) -> None:
        rows = _gray(band)[..., None] if self._gray else band
        if self._alpha is not None:
            rows = np.dstack([rows, self._alpha[self._row : self._row + len(band)]])
        self._row += len(band)
        self._writer.write(np.ascontiguousarray(rows))

    def finish(self) -> bytes:
        return self._writer.finish()


class _Whole:
    def __init__(self, picture: Picture, factor: int, format: OutputFormat) -> None:
        width, height = picture.size
        self._picture, self._factor, self._format = picture, factor, format
        self._pixels = np.empty((height * factor, width * factor, 3), np.uint8)
        self._row = 0

    def write(self, band: Pixels) -> None:
        self._pixels[self._row : self._row + len(band)] = band
        self._row += len(band)

    def finish(self) -> bytes:
        out = io.BytesIO()
        alpha = _enlarged_alpha(self._picture, self._factor)
        mask = None if alpha is None else Image.fromarray(alpha)
        if self._format == "jpeg":
            image = Image.fromarray(_gray(self._pixels) if self._picture.gray else self._pixels)
            if mask:
                image = Image.composite(image, Image.new(image.mode, image.size, "white"), mask)
            image.save(out, "JPEG", quality=95, subsampling=0, icc_profile=self._picture.icc)
        else:
            image = Image.fromarray(self._pixels)
            if mask:
                image.putalpha(mask)
            # WebP has no grayscale, and a gray profile does not describe RGB.
            icc = None if self._picture.gray else self._picture.icc
            image.save(out, "WEBP", quality=90, method=2, icc_profile=icc or b"")
        return out.getvalue()


def _gray(band: Pixels) -> Pixels:
    """(rows, width, 3) → (rows, width), by BT.601's luma as everywhere in Pillow."""
    return np.asarray(Image.fromarray(band).convert("L"))


def _enlarged_alpha(picture: Picture, factor: int) -> Pixels | None:
    """Alpha is enlarged by bicubic interpolation."""
    return None if picture.alpha is None else np.concatenate(list(bicubic(picture.alpha, factor)))
