"""Writes PNG while rows come: what is written is compressed in other threads."""

from collections.abc import Callable
from concurrent.futures import Executor

import numpy as np

from upres.worker.imaging.metadata import XMP_KEYWORD
from upres.worker.imaging.picture import Picture
from upres.worker.imaging.png import Chunk, PngWriter, density_chunk, profile_chunk, text_chunk
from upres.worker.imaging.result_file import ResultFile
from upres.worker.imaging.writers.rows import as_in_file
from upres.worker.samples import Samples


class PngEncoder:
    """An Encoder (imaging/encode.py) for PNG, with 8 or 16 bits."""

    def __init__(
        self, picture: Picture, output: ResultFile, compressors: Executor, sink: Callable[[bytes], object]
    ) -> None:
        self._picture = picture
        channels = picture.channels + (picture.alpha is not None)
        self._writer = PngWriter(*output.size, channels, compressors, sink, chunks(picture), output.depth)

    def write(self, band: Samples) -> None:
        """See Encoder."""
        self._writer.write(np.ascontiguousarray(as_in_file(band, self._picture)))

    def finish(self) -> None:
        """See Encoder."""
        self._writer.finish()


def chunks(picture: Picture) -> list[Chunk]:
    """Return the chunks before the pixels of a PNG file: profile and metadata."""
    kept = picture.metadata
    found = [profile_chunk(picture.icc)] if picture.icc else []
    found += [density_chunk(kept.dpi)] if kept.dpi else []
    found += [(b"eXIf", kept.exif)] if kept.exif else []
    found += [text_chunk(XMP_KEYWORD, kept.xmp.decode(errors="ignore"))] if kept.xmp else []
    return found + [text_chunk(*one) for one in kept.texts]
