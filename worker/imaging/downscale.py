"""Makes what a network made smaller, to a wanted size, in bands of rows and in fixed memory.

Light is averaged, not grey levels: colours are converted by the curve of sRGB (IEC 61966-2-1) to linear light and back.
Averages of grey levels are too dark: a fine pattern of black and white becomes grey 128 instead of 188. Colours with an
ICC profile of another curve are converted by that of sRGB too: it is close to all usual curves (gamma 1.8 to 2.4), and
flat areas and grays stay what they are in any case. Alpha is linear as it is.

The kernel is a raised cosine (Pillow's HAMMING), which has no negative weights. Kernels that have some (BICUBIC,
LANCZOS) are between 0.4 dB better and 0.5 dB worse in linear light, but draw dark lines beside bright edges: beside an
edge from 50 to 200 there are pixels of 31 down to 0 (benchmarks/RESULTS.md). Colours are averaged without regard to
alpha: weights by alpha came no nearer to what is seen on black and on white, as browsers blend grey levels, not light.
"""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from upres.core.sizes import Size
from upres.worker.imaging.srgb_curve import light_of, value_of
from upres.worker.samples import Samples

KERNEL, SUPPORT = Image.Resampling.HAMMING, 1
"""The filter, and its reach in pixels of the smaller image."""
SAMPLES = 1 << 19
"""Pixels of the larger image that are converted at a time, which limits memory to about 10 MB."""
STEPS = {np.dtype(np.uint8): 1 << 14, np.dtype(np.uint16): 1 << 18}
"""Entries of the table back to samples, by the square root of light: no step is more than 0.4 of a level of 16 bits, or
0.03 of one of 8, so each level comes back as itself."""


def downscaled(bands: Iterable[Samples], made: Size, size: Size) -> Iterator[Samples]:
    """Make an image smaller that comes in bands (rows, width, 3 or 4), and yield bands (rows, width, 3 or 4) of it.

    `made` and `size` are (width, height) before and after; no side grows. Bands pass unchanged if both are equal. The
    result is, to one level, that of the whole image at once; the colours where alpha is 0 must be filled already.
    """
    if made == size:
        yield from bands
        return
    scale = made[1] / size[1]
    rows, step = _Rows(bands), max(1, round(SAMPLES / made[0] / scale))
    for top in range(0, size[1], step):
        bottom = min(top + step, size[1])
        reach = SUPPORT * scale + 1
        first, last = max(0, int(top * scale - reach)), min(made[1], int(bottom * scale + reach) + 1)
        box = (0, top * scale - first, made[0], min(bottom * scale, made[1]) - first)
        yield _resized(rows.between(first, last), (size[0], bottom - top), box)


class _Rows:
    """Rows that come in bands from top to bottom; keeps those that may still be asked for."""

    def __init__(self, bands: Iterable[Samples]) -> None:
        self._bands = iter(bands)
        self._kept: list[Samples] = []
        self._first = self._stop = 0

    def between(self, first: int, last: int) -> Samples:
        """Return a copy of the rows from `first` to before `last`; later calls may not ask for rows above these."""
        while self._stop < last:
            # Copied, so that the band before, which is larger, is freed while the next one is made.
            self._kept = [self._cut(first, self._stop)] if self._kept else []
            self._first = min(first, self._stop)
            self._kept.append(next(self._bands))
            self._stop += len(self._kept[-1])
        return self._cut(first, last)

    def _cut(self, first: int, last: int) -> Samples:
        """Return a copy of the rows from `first` to before `last`, which are kept."""
        parts, top = [], self._first
        for part in self._kept:
            parts.append(part[max(0, first - top) : max(0, last - top)])
            top += len(part)
        return np.concatenate(parts)


def _resized(rows: Samples, size: Size, box: tuple[float, float, float, float]) -> Samples:
    """Return what a box (left, upper, right, lower) of rows (rows, width, 3 or 4) becomes at a size."""
    out = np.empty((size[1], size[0], rows.shape[2]), rows.dtype)
    curve = _curve(rows.dtype)
    for channel in range(rows.shape[2]):
        plane = rows[..., channel]
        light = plane.astype(np.float32) if channel == 3 else curve.light[plane]
        smaller = np.asarray(Image.fromarray(light).resize(size, KERNEL, box=box))
        out[..., channel] = _rounded(smaller, rows.dtype) if channel == 3 else curve.back(smaller)
    return out


class _Curve(NamedTuple):
    """The curve of sRGB as tables, for samples of 8 or of 16 bits."""

    light: npt.NDArray[np.float32]
    """Sample → linear light, 0 to 1."""
    samples: Samples
    """Square root of linear light, 0 to 1 in equal steps → sample."""

    def back(self, light: npt.NDArray[np.float32]) -> Samples:
        """Return the samples of linear light; what is below 0 or above 1 becomes that."""
        steps = np.float32(len(self.samples) - 1)
        index = np.sqrt(light.clip(0, 1)) * steps + np.float32(0.5)
        samples: Samples = self.samples[index.astype(np.int32)]
        return samples


@lru_cache
def _curve(kind: np.dtype[Any]) -> _Curve:
    most, steps = np.iinfo(kind).max, STEPS[kind]
    light = light_of(np.arange(most + 1) / most)
    back = value_of((np.arange(steps) / (steps - 1)) ** 2)
    return _Curve(light.astype(np.float32), _rounded(back * most, kind))


def _rounded(values: npt.NDArray[np.floating[Any]], kind: np.dtype[Any]) -> Samples:
    rounded: Samples = np.rint(values).clip(0, np.iinfo(kind).max).astype(kind)
    return rounded
