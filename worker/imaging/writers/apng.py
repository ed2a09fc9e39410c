"""Writes animated PNG (W3C PNG, Third Edition, section 11.3.6) while rows come, without loss, and in fixed memory."""

import struct
from collections.abc import Callable
from concurrent.futures import Executor

import numpy as np

from upres.worker.imaging import png
from upres.worker.imaging.picture import Pictures
from upres.worker.imaging.png import Rows, chunk
from upres.worker.imaging.result_file import ResultFile
from upres.worker.imaging.writers.png import chunks
from upres.worker.imaging.writers.rows import as_in_file
from upres.worker.samples import Samples

UNITS = (1000, 100, 10, 1)
"""Parts of a second in which a duration is stated: the finest with which it fits 16 bits."""


class ApngEncoder:
    """An Encoder (imaging/encode.py) for animations in PNG, with 8 or 16 bits. Each frame is a whole image."""

    def __init__(
        self, pictures: Pictures, output: ResultFile, compressors: Executor, sink: Callable[[bytes], object]
    ) -> None:
        self._sink = sink
        self._pictures, self._output, self._compressors = pictures, output, compressors
        self._frames: list[list[bytes]] = []
        """The compressed pixels of each frame, in pieces."""
        self._open: list[Rows] = []
        """The frames that are being compressed: the one that gets rows, and the one before."""

    def write(self, band: Samples) -> None:
        """See Encoder."""
        if not self._open or not self._open[-1].left:
            self._begin_frame()
        self._open[-1].write(np.ascontiguousarray(as_in_file(band, self._pictures.first)))

    def finish(self) -> None:
        """See Encoder. Raises ValueError when rows are missing."""
        for rows in self._open:
            rows.finish()
        if len(self._frames) < len(self._pictures.frames):
            raise ValueError("frames are missing")
        control = struct.pack(">II", len(self._frames), self._pictures.plays)
        first = self._pictures.first
        before = [(b"acTL", control), *chunks(first)]
        for piece in png.head(
            *self._output.size, first.channels + (first.alpha is not None), before, self._output.depth
        ):
            self._sink(piece)
        number = 0
        for pieces, duration in zip(self._frames, self._pictures.durations, strict=True):
            is_first = number == 0
            self._sink(chunk(b"fcTL", self._control(number, duration)))
            number += 1
            for piece in pieces:
                self._sink(chunk(b"IDAT", piece) if is_first else chunk(b"fdAT", struct.pack(">I", number) + piece))
                number += not is_first
            pieces.clear()
        self._sink(chunk(b"IEND", b""))

    def _begin_frame(self) -> None:
        if len(self._open) == 2:
            self._open.pop(0).finish()
        pieces: list[bytes] = []
        first = self._pictures.first
        pixel_bytes = (first.channels + (first.alpha is not None)) * self._output.depth // 8
        self._frames.append(pieces)
        self._open.append(Rows(*self._output.size, pixel_bytes, self._compressors, pieces.append))

    def _control(self, number: int, duration: int) -> bytes:
        """Return the data of a frame's fcTL: it replaces the whole canvas, and stays."""
        unit = next((unit for unit in UNITS if duration * unit / 1000 < 2**16), 1)
        shown = (round(duration * unit / 1000), unit)
        return struct.pack(">IIIIIHHBB", number, *self._output.size, 0, 0, *shown, 0, 0)
