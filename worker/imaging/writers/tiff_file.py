"""Writes TIFF 6.0 in bands of rows, which are compressed in parallel while others are computed.

Every strip gets the horizontal predictor (section 14) and deflate (Adobe's Technical Note of 2002), by ISA-L as in the
PNG writer. Only compressed strips are kept; tifffile puts them together at the end.
"""

import io
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any

import numpy as np
from isal import isal_zlib
from PIL.TiffImagePlugin import ImageFileDirectory_v2
from tifffile import TiffFile, TiffWriter

from upres.worker.samples import Samples

LEVEL = 2
"""ISA-L's compression level, 0 to 3."""
STRIP_BYTES = 1 << 18
"""Uncompressed bytes of a strip: large enough that strips do not cost compression, small enough to use all cores."""
STRIPS_AHEAD = 128
"""Maximum number of strips that wait for compression. It limits memory when rows come faster than they compress."""
CLASSIC_BYTES = 2**32 - (1 << 26)
"""Largest sum of strips whose offsets fit in 32 bits, with room for all else; larger files are BigTIFF."""
LONG, ANYWHERE, VALUE = 4, 8, 8
"""The number of the type of 32-bit numbers; an offset that a pointer may have before its directory is written; and
where an entry of a directory has its value (section 2)."""

Tag = tuple[int | str, int, int | None, Any, bool]
"""A tag as tifffile takes it: code or name, type, count, value, and whether only the first page has it."""


@dataclass(frozen=True)
class About:
    """What a page of a file says beside its pixels."""

    icc: bytes | None = None
    dpi: tuple[float, float] | None = None
    tags: Sequence[Tag] = ()
    directories: Mapping[str, ImageFileDirectory_v2] | None = None
    """Name of the tag that points to it → a directory, such as that of Exif."""


class Page:
    """One image of a file. Takes its rows from top to bottom, in bands of any height; `executor` compresses them."""

    def __init__(
        self, size: tuple[int, int], channels: int, depth: int, executor: Executor, about: About = About()
    ) -> None:
        width, height = size
        self.shape = (height, width, channels)
        self.dtype = np.dtype(np.uint8 if depth == 8 else "<u2")
        self.rows_per_strip = min(height, max(1, STRIP_BYTES // (width * channels * self.dtype.itemsize)))
        self.about = about
        self.strips: list[bytes] = []
        self._executor = executor
        self.rows_left = height
        """Rows that are still missing."""
        self._begun: list[Samples] = []
        self._waiting: deque[Future[bytes]] = deque()

    def write(self, band: Samples) -> None:
        """Add rows, (rows, width, channels). The array must not change until it is compressed."""
        self.rows_left -= len(band)
        while len(band):
            missing = self.rows_per_strip - sum(map(len, self._begun))
            self._begun.append(band[:missing])
            band = band[missing:]
            if sum(map(len, self._begun)) == self.rows_per_strip:
                self._submit()

    def finish(self) -> None:
        """Wait for all strips. Raises ValueError when the number of rows is not the height."""
        if self.rows_left:
            raise ValueError(f"{self.rows_left} rows are missing")
        if self._begun:
            self._submit()
        while self._waiting:
            self.strips.append(self._waiting.popleft().result())

    def _submit(self) -> None:
        self._waiting.append(self._executor.submit(_compress, self._begun, self.dtype))
        self._begun = []
        if len(self._waiting) > STRIPS_AHEAD:
            self.strips.append(self._waiting.popleft().result())


def file_of(pages: Sequence[Page]) -> bytes:
    """Return the file of pages that are finished."""
    file, big = io.BytesIO(), sum(len(strip) for page in pages for strip in page.strips) > CLASSIC_BYTES
    with TiffWriter(file, bigtiff=big, byteorder="<") as writer:
        for page in pages:
            _write(writer, page, big)
    if not big:  # the directories of a BigTIFF file have another layout, which Pillow does not write
        for number, page in enumerate(pages):
            _add_directories(file, number, page.about.directories or {})
    return file.getvalue()


def _write(writer: TiffWriter, page: Page, big: bool) -> None:
    about, colours = page.about, 1 if page.shape[2] < 3 else 3
    pointers: list[Tag] = [] if big else [(name, LONG, 1, ANYWHERE, False) for name in about.directories or {}]
    writer.write(
        iter(page.strips),
        shape=page.shape if page.shape[2] > 1 else page.shape[:2],
        dtype=page.dtype,
        photometric="minisblack" if colours == 1 else "rgb",
        planarconfig="contig",
        extrasamples=["unassalpha"] if page.shape[2] > colours else None,
        rowsperstrip=page.rows_per_strip,
        compression="adobe_deflate",
        predictor="horizontal",
        resolution=about.dpi,
        resolutionunit="inch" if about.dpi else None,
        iccprofile=about.icc,
        extratags=[*about.tags, *pointers],
        software=False,
        metadata=None,
    )


def _add_directories(file: io.BytesIO, number: int, directories: Mapping[str, ImageFileDirectory_v2]) -> None:
    """Append directories to a file, and let the tags of a page point to them."""
    for name, directory in directories.items():
        at = file.seek(0, io.SEEK_END)
        file.write(bytes(at % 2))  # directories begin at even offsets (section 2)
        at += at % 2
        file.write(directory.tobytes(at))
        file.seek(0)
        with TiffFile(file) as tiff:
            place = tiff.pages[number].aspage().tags[name].offset + VALUE
        file.seek(place)
        file.write(at.to_bytes(4, "little"))


def _compress(parts: Sequence[Samples], dtype: np.dtype[Any]) -> bytes:
    """Predict and compress the rows of a strip."""
    rows = np.concatenate(parts).astype(dtype, copy=False)
    rows[:, 1:] -= rows[:, :-1].copy()  # concatenate has made a copy
    data: bytes = isal_zlib.compress(rows, LEVEL)
    return data
