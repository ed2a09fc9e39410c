"""The canvas of an animation: what it shows when a frame was drawn over those before it."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from upres.worker.samples import Samples

Disposal = Literal["keep", "clear", "restore"]
"""What happens with a frame when its time is over: it stays, becomes transparent, or what was before it returns."""


class Part(NamedTuple):
    """The part of the canvas that a frame changes."""

    samples: Samples
    """(height, width, 2 or 4); the last channel is alpha."""
    left: int
    top: int
    disposal: Disposal
    blend: bool
    """Whether it is laid over the canvas by its alpha; else it replaces it."""


class Canvas:
    """A canvas of (width, height) pixels, which is transparent at first."""

    def __init__(self, width: int, height: int, like: Samples) -> None:
        self._pixels: Samples = np.zeros((height, width, like.shape[2]), like.dtype)
        self._dispose: Callable[[], None] = lambda: None

    def shown(self, part: Part) -> Samples:
        """Draw the next frame, without what is outside of the canvas, and return a copy of all that is visible then."""
        self._dispose()
        place = self._pixels[part.top :, part.left :][: len(part.samples), : part.samples.shape[1]]
        samples = part.samples[: len(place), : place.shape[1]]
        before = place.copy() if part.disposal == "restore" else np.zeros_like(place[:1, :1])
        place[:] = over(samples, place) if part.blend else samples
        self._dispose = lambda: None if part.disposal == "keep" else np.copyto(place, before)
        return self._pixels.copy()


def over(above: Samples, below: Samples) -> Samples:
    """Lay samples over others by their alpha, which is the last channel and not premultiplied."""
    most = np.iinfo(above.dtype).max
    alpha = above[..., -1:]
    if ((alpha == 0) | (alpha == most)).all():
        shown: Samples = np.where(alpha > 0, above, below)
        return shown
    share: npt.NDArray[np.float64] = alpha / most
    rest = below[..., -1:] / most * (1 - share)
    total = share + rest
    colours = (above[..., :-1] * share + below[..., :-1] * rest) / np.where(total > 0, total, 1)
    mixed: Samples = np.rint(np.concatenate([colours, total * most], axis=2)).astype(above.dtype)
    return mixed


def with_alpha(samples: Samples) -> Samples:
    """Return samples with an alpha channel, opaque if they have none."""
    if samples.shape[2] in (2, 4):
        return samples
    opaque = np.full((*samples.shape[:2], 1), np.iinfo(samples.dtype).max, samples.dtype)
    return np.concatenate([samples, opaque], axis=2)


def without_opaque_alpha(frames: list[Samples]) -> list[Samples]:
    """Drop the alpha channel of frames when all of them are opaque; else keep all."""
    if all((frame[..., -1] == np.iinfo(frame.dtype).max).all() for frame in frames):
        return [np.ascontiguousarray(frame[..., :-1]) for frame in frames]
    return frames
