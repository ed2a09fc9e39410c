"""Enlarges the pictures of a file one after the other: one still image, the frames of an animation, or pages.

Rows are numbered over all pictures, from the top of the first one; a band of rows belongs to one picture.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np

from upres.core.sizes import SizePlan
from upres.worker.engine.engine import OnPiece, OnTile
from upres.worker.engine.steps import Steps
from upres.worker.imaging.downscale import downscaled
from upres.worker.imaging.picture import Pictures
from upres.worker.samples import Samples

OnFrame = Callable[[int], None]
"""Called with the number of each picture, from 1, before it is enlarged."""


class BandKind(NamedTuple):
    """What the pixels of a band must be that begins at a row."""

    shape: tuple[int, int, int]
    """(rows at most, width, 3 or 4)."""
    dtype: np.dtype[Any]


class Enlargement:
    """The enlargement of all pictures of a file, each by its factor, with the same steps and number of orientations."""

    def __init__(self, steps: Steps, pictures: Pictures, factors: Sequence[int], orientations: int = 1) -> None:
        self._steps, self._frames = steps, pictures.frames
        self._factors, self._orientations = factors, orientations
        self.repeated = 0
        """Number of pictures that had the pixels of the one before, and were not computed."""
        heights = (factor * frame.size[1] for factor, frame in zip(factors, self._frames, strict=True))
        self.tops = list(accumulate(heights, initial=0))
        """The first row of each picture, and at last the number of rows of all together."""

    @property
    def bytes(self) -> int:
        """Size of all enlarged pixels in memory."""
        return sum(frame.pixels.nbytes * factor**2 for factor, frame in zip(self._factors, self._frames, strict=True))

    @property
    def first_step_bytes(self) -> int:
        """Memory of a first step in bytes: the bands of the largest picture, and the image that is made of them."""
        return 2 * max(frame.pixels.nbytes for frame in self._frames)

    def kind_at(self, row: int) -> BandKind:
        """Return what a band that begins at a row must be: (rows of its picture from there on, width, channels)."""
        number = self._number_at(row)
        pixels = self._frames[number].pixels
        return BandKind(
            (self.tops[number + 1] - row, pixels.shape[1] * self._factors[number], pixels.shape[2]), pixels.dtype
        )

    def progress_at(self, row: int) -> tuple[int, int]:
        """Return how many tiles count as done when `bands` begins at a row, and the total number."""
        if row == self.tops[-1]:
            return sum(self._tiles), sum(self._tiles)
        number = self._number_at(row)
        return sum(self._tiles[:number]) + self._progress(number, row - self.tops[number])[0], sum(self._tiles)

    def bands(
        self, on_tile: OnTile, on_frame: OnFrame, first_row: int = 0, on_piece: OnPiece | None = None
    ) -> Iterator[Samples]:
        """Yield bands of rows, (rows, width, 3 or 4), from a row on. `on_piece` gets the pieces of the first picture.

        A picture with the same pixels as the one before is not enlarged again. Raises what Engine.bands raises.
        """
        same: list[Samples] = []
        for number in range(self._number_at(first_row), len(self._frames)):
            on_frame(number + 1)
            before, tiles, row = sum(self._tiles[:number]), self._tiles[number], max(0, first_row - self.tops[number])
            is_repeated = row == 0 and self._is_repeated(number)
            if same:
                self.repeated += 1
                on_tile(before + tiles, sum(self._tiles))
                yield from same
                same = same if is_repeated else []
                continue
            for band in self._bands(number, _within(on_tile, before, tiles, sum(self._tiles)), row, on_piece):
                if is_repeated:
                    same.append(band)
                yield band

    def _bands(self, number: int, on_tile: OnTile, row: int, on_piece: OnPiece | None) -> Iterator[Samples]:
        """Yield the bands of one picture."""
        pixels, shown = self._frames[number].pixels, on_piece if number == 0 else None
        return self._steps.bands(pixels, self._factors[number], on_tile, row, shown, self._orientations)

    @cached_property
    def _tiles(self) -> list[int]:
        """The number of tiles of each picture, when it is asked for first."""
        known: dict[tuple[int, int], int] = {}
        for number, frame in enumerate(self._frames):
            if frame.size not in known:
                known[frame.size] = self._progress(number, 0)[1]
        return [known[frame.size] for frame in self._frames]

    def _progress(self, number: int, row: int) -> tuple[int, int]:
        return self._steps.progress_at(self._frames[number].pixels, self._factors[number], row, self._orientations)

    def _number_at(self, row: int) -> int:
        return sum(top <= row for top in self.tops[1:-1])

    def _is_repeated(self, number: int) -> bool:
        """Return whether the next picture has the same pixels."""
        pixels, following = self._frames[number].pixels, self._frames[number + 1 : number + 2]
        return any(pixels.dtype == one.pixels.dtype and np.array_equal(pixels, one.pixels) for one in following)


def _within(on_tile: OnTile, before: int, planned: int, total: int) -> OnTile:
    """Return a callback for the tiles of one picture. Their number grows when tiles shrink; the total stays."""
    return lambda done, count: on_tile(before + max(1, done * planned // count), total)


def all_downscaled(bands: Iterator[Samples], plans: Sequence[SizePlan]) -> Iterator[Samples]:
    """Yield the rows of each picture in its planned size, from bands of the rows that a network made of all of them."""
    for plan in plans:
        rows = _of_one(bands, plan.made[1])
        yield from downscaled(rows, plan.made, plan.size)
        for _ in rows:  # the last ones may not be needed
            pass


def _of_one(bands: Iterator[Samples], rows: int) -> Iterator[Samples]:
    """Yield the next bands with so many rows together."""
    while rows > 0:
        band = next(bands)
        rows -= len(band)
        yield band
