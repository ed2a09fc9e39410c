"""Writes animated WebP by Pillow, which needs all frames, in memory."""

import io
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image

from upres.worker.imaging.picture import Pictures
from upres.worker.imaging.result_file import ResultFile
from upres.worker.imaging.writers.refusals import refused_by
from upres.worker.imaging.writers.rows import as_in_file
from upres.worker.imaging.writers.whole_image import webp_options
from upres.worker.samples import Samples


class MovingWebpEncoder:
    """An Encoder (imaging/encode.py) for animations in WebP.

    Frames that are identical to the one before become longer durations of that one, and all looks the same.
    """

    def __init__(self, pictures: Pictures, output: ResultFile, sink: Callable[[bytes], object]) -> None:
        self._pictures, self._output, self._sink = pictures, output, sink
        width, height = output.size
        channels = pictures.first.channels + (pictures.first.alpha is not None)
        self._pixels: npt.NDArray[np.uint8] = np.empty((len(pictures.frames) * height, width, channels), np.uint8)
        self._row = 0

    def write(self, band: Samples) -> None:
        """See Encoder."""
        self._pixels[self._row : self._row + len(band)] = as_in_file(band, self._pictures.first)
        self._row += len(band)

    def finish(self) -> None:
        """See Encoder."""
        pixels = self._pixels[..., 0] if self._pixels.shape[2] == 1 else self._pixels
        first, *others = (Image.fromarray(one) for one in np.split(pixels, len(self._pictures.frames)))
        picture, file = self._pictures.first, io.BytesIO()
        kept = picture.metadata
        with refused_by("webp"):
            first.save(
                file,
                "WEBP",
                save_all=True,
                append_images=others,
                duration=list(self._pictures.durations),
                loop=self._pictures.plays % 2**16,
                icc_profile=picture.icc or b"",
                exif=kept.exif,
                xmp=kept.xmp,
                **webp_options(self._output),
            )
        self._sink(file.getvalue())
