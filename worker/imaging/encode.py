"""Encodes pixels to image files: PNG and TIFF in bands, while the other rows are still computed; all others at the end.

The result keeps grayscale, alpha and ICC profile of the input, as far as the format supports them. What is special to a
format is said in its module below writers/.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from upres.core import cores
from upres.worker.imaging.bicubic import bicubic
from upres.worker.imaging.picture import Picture, Pictures
from upres.worker.imaging.png import PngWriter
from upres.worker.imaging.result_file import ResultFile
from upres.worker.imaging.writers.apng import ApngEncoder
from upres.worker.imaging.writers.gif import GifEncoder
from upres.worker.imaging.writers.moving_webp import MovingWebpEncoder
from upres.worker.imaging.writers.png import PngEncoder
from upres.worker.imaging.writers.tiff import TiffEncoder
from upres.worker.imaging.writers.whole_image import WholeImageEncoder
from upres.worker.samples import Samples


class Encoder(Protocol):
    """Takes the enlarged rows of one picture, or of each after the other, and returns the file at the end.

    A band of rows belongs to one picture.
    """

    def write(self, band: Samples) -> None:
        """Add rows (rows, width, 3), RGB; or (rows, width, 4), if the picture has alpha."""
        ...

    def finish(self) -> bytes:
        """Return the file. All rows must be written before. Raises NotEncoded when a library refuses the image."""
        ...


class Encoders:
    """The threads that encode images for all jobs of a worker, which runs at most `jobs` at once."""

    def __init__(self, jobs: int) -> None:
        self._compressors = ThreadPoolExecutor(cores.count(), thread_name_prefix="compress")
        # A pool of its own: background work waits for the compressors, and in the same pool it could deadlock.
        self._background = ThreadPoolExecutor(jobs, thread_name_prefix="background")

    def open(self, picture: Picture, output: ResultFile) -> Encoder:
        """Open an encoder for the enlargement of one picture."""
        return self.open_all(Pictures((picture,)), [output])

    def open_all(self, pictures: Pictures, outputs: Sequence[ResultFile]) -> Encoder:
        """Open an encoder for the enlargements of all pictures, whose rows it gets one after the other.

        There is one for each picture in `outputs`. Their format can hold all of them (formats.holds).
        """
        output, picture = outputs[0], pictures.first
        if output.format == "gif":
            return GifEncoder(pictures, output)
        if pictures.animated:
            return (
                ApngEncoder(pictures, output, self._compressors)
                if output.format == "png"
                else MovingWebpEncoder(pictures, output)
            )
        if len(outputs) > 1 and output.format != "tiff":
            raise ValueError(f"{output.format} cannot have several pages")
        if output.format == "png":
            return PngEncoder(picture, output, self._compressors)
        if output.format == "tiff":
            return TiffEncoder(pictures, outputs, self._compressors)
        return WholeImageEncoder(picture, output)

    def original(
        self, pictures: Pictures, outputs: Sequence[ResultFile], deliver: Callable[[bytes], object]
    ) -> "Future[object]":
        """Enlarge pictures by bicubic interpolation, encode them, and pass the file to `deliver`, in the background."""
        return self.background(lambda: deliver(self._encode_bicubic(pictures, outputs)))

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

    def _encode_bicubic(self, pictures: Pictures, outputs: Sequence[ResultFile]) -> bytes:
        encoder = self.open_all(pictures, outputs)
        for picture, output in zip(pictures.frames, outputs, strict=True):
            for band in bicubic(picture.pixels, output.size):
                encoder.write(band)
        return encoder.finish()
