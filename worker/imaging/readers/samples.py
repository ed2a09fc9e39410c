"""Pure functions on the samples of an image: their depth, their alpha, and which way is up."""

from typing import Any

import numpy as np
import numpy.typing as npt

from upres.core.errors import UnsupportedImage
from upres.worker.samples import Samples, in_bands


def channels_last(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return (height, width, channels) of an array that may have no axis for a single channel."""
    return values if values.ndim == 3 else values[..., None]


def full_range(values: npt.NDArray[Any], bits: int) -> Samples:
    """Stretch integers from 0 to 2^bits - 1 to all of 8 or of 16 bits, rounded. Up to 8 bits become 8, others 16."""
    if bits in (8, 16):
        return values.astype(np.uint8, copy=False) if bits == 8 else values.astype(np.uint16, copy=False)
    if bits > 16:
        return in_bands(values, np.uint16, lambda band: band >> np.uint32(bits - 16))
    most, target = (1 << bits) - 1, 255 if bits < 8 else 65535
    levels = (np.arange(most + 1, dtype=np.uint64) * target + most // 2) // most
    return in_bands(values, np.uint8 if bits < 8 else np.uint16, lambda band: levels[np.minimum(band, most)])


def of_floats(values: npt.NDArray[Any]) -> Samples:
    """Convert numbers from 0 to 1 to 16 bits. Raises UnsupportedImage when one is outside, or is no number."""
    if not (values.min() >= 0 and values.max() <= 1):
        raise UnsupportedImage(
            "The image has floating-point samples outside of 0 to 1; save it with 8 or 16 bits per channel."
        )
    return in_bands(values, np.uint16, lambda band: np.rint(band.astype(np.float32) * np.float32(65535)))


def keyed(samples: Samples, key: npt.ArrayLike) -> Samples:
    """Append an alpha channel that is 0 where all channels equal `key`, and opaque elsewhere."""
    opaque = np.iinfo(samples.dtype).max
    equal = (samples == np.asarray(key, samples.dtype)).all(axis=2)
    return np.dstack([samples, np.where(equal, samples.dtype.type(0), samples.dtype.type(opaque))])


def straight(samples: Samples) -> Samples:
    """Divide the colours by alpha, the last channel, where they were multiplied with it. Transparent ones stay."""
    most = np.uint32(np.iinfo(samples.dtype).max)

    def divided(band: npt.NDArray[Any]) -> npt.NDArray[Any]:
        numbers = band.astype(np.uint32)
        alpha = np.maximum(numbers[..., -1:], 1)
        colours = np.minimum((numbers[..., :-1] * most + alpha // 2) // alpha, most)
        numbers[..., :-1] = np.where(numbers[..., -1:] > 0, colours, numbers[..., :-1])
        return numbers

    return in_bands(samples, samples.dtype, divided)


def upright(samples: Samples, orientation: int) -> Samples:
    """Turn and mirror samples as an orientation of EXIF or TIFF says: 1 to 8, others mean nothing."""
    turned: npt.NDArray[Any] = samples.swapaxes(0, 1) if orientation in (5, 6, 7, 8) else samples
    if orientation in (3, 4, 7, 8):
        turned = turned[::-1]
    if orientation in (2, 3, 6, 7):
        turned = turned[:, ::-1]
    return np.ascontiguousarray(turned)
