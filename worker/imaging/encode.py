"""Encodes pixels to image files: PNG and TIFF in bands, while the other rows are still computed; all others at the end.

The bytes of a file go to a sink as soon as they are known, so that they can be sent meanwhile: those of PNG in pieces.

The result keeps grayscale, alpha and ICC profile of the input, as far as the format supports them. What is special to a
format is said in its module below writers/.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from upres.core import cores
from upres.worker.imaging.picture import Pictures
from upres.worker.imaging.png import PngWriter
from upres.worker.imaging.result_file import ResultFile
from upres.worker.imaging.writers.apng import ApngEncoder
from upres.worker.imaging.writers.gif import GifEncoder
from upres.worker.imaging.writers.moving_webp import MovingWebpEncoder
from upres.worker.imaging.writers.png import PngEncoder
from upres.worker.imaging.writers.tiff import TiffEncoder
from upres.worker.imaging.writers.whole_image import WholeImageEncoder
from upres.worker.samples import Samples

Sink = Callable[[bytes], object]
"""Takes the bytes of a file, in order."""


class Encoder(Protocol):
    """Takes the enlarged rows of one picture, or of each after the other, and gives the bytes of the file to its sink.

    A band of rows belongs to one picture.
    """

    def write(self, band: Samples) -> None:
        """Add rows (rows, width, 3), RGB; or (rows, width, 4), if the picture has alpha."""
        ...

    def finish(self) -> None:
        """Give the rest of the file to the sink. All rows must be written before.

        Raises NotEncoded when a library refuses the image.
        """
        ...


class Encoders:
    """The threads that encode images for all jobs of a worker, which runs at most `jobs` at once."""

    def __init__(self, jobs: int) -> None:
        self._compressors = ThreadPoolExecutor(cores.count(), thread_name_prefix="compress")
        # A pool of its own: background work waits for the compressors, and in the same pool it could deadlock.
        self._background = ThreadPoolExecutor(jobs, thread_name_prefix="background")

    def open(self, pictures: Pictures, outputs: Sequence[ResultFile], sink: Sink) -> Encoder:
        """Open an encoder for the enlargements of all pictures, whose rows it gets one after the other.

        There is one for each picture in `outputs`. Their format can hold all of them (formats.holds).
        """
        output, picture = outputs[0], pictures.first
        if output.format == "gif":
            return GifEncoder(pictures, output, sink)
        if pictures.animated:
            return (
                ApngEncoder(pictures, output, self._compressors, sink)
                if output.format == "png"
                else MovingWebpEncoder(pictures, output, sink)
            )
        if len(outputs) > 1 and output.format != "tiff":
            raise ValueError(f"{output.format} cannot have several pages")
        if output.format == "png":
            return PngEncoder(picture, output, self._compressors, sink)
        if output.format == "tiff":
            return TiffEncoder(pictures, outputs, self._compressors, sink)
        return WholeImageEncoder(picture, output, sink)

    def encode(self, pictures: Pictures, outputs: Sequence[ResultFile], bands: Iterable[Samples], sink: Sink) -> None:
        """Encode the enlargements of all pictures, given by bands of rows. Raises NotEncoded."""
        encoder = self.open(pictures, outputs, sink)
        for band in bands:
            encoder.write(band)
        encoder.finish()

    def file(self, pictures: Pictures, outputs: Sequence[ResultFile], bands: Iterable[Samples]) -> bytes:
        """Encode the enlargements of all pictures to a file in memory. Raises NotEncoded."""
        pieces: list[bytes] = []
        self.encode(pictures, outputs, bands, pieces.append)
        return b"".join(pieces)

    def background(self, work: Callable[[], object]) -> "Future[object]":
        """Run a function in a background thread, beside the enlargement."""
        return self._background.submit(work)

    def png(self, rows: Samples) -> bytes:
        """Encode rows (rows, width, 3 or 4) as a PNG file."""
        height, width, channels = rows.shape
        pieces: list[bytes] = []
        writer = PngWriter(width, height, channels, self._compressors, pieces.append, depth=rows.itemsize * 8)
        writer.write(rows)
        writer.finish()
        return b"".join(pieces)

    def close(self) -> None:
        """Wait for all work, and end the threads."""
        self._background.shutdown()
        self._compressors.shutdown()
