"""The curve of sRGB (IEC 61966-2-1) between stored values and linear light, both from 0 to 1; and samples by it."""

from typing import Any

import numpy as np
import numpy.typing as npt

from upres.worker.samples import Samples, in_bands

Numbers = npt.NDArray[np.floating[Any]]
STRAIGHT, SLOPE, POWER = 0.0031308, 12.92, 2.4
"""The light at which the straight part of the curve ends, the slope of that part, and the exponent of the rest."""


def light_of(values: Numbers) -> Numbers:
    """Return the linear light of stored values."""
    return np.where(values <= STRAIGHT * SLOPE, values / SLOPE, ((values + 0.055) / 1.055) ** POWER)


def value_of(light: Numbers) -> Numbers:
    """Return the stored values of linear light."""
    return np.where(light <= STRAIGHT, light * SLOPE, 1.055 * light ** (1 / POWER) - 0.055)


def srgb_of_linear(samples: Samples, has_alpha: bool) -> Samples:
    """Convert samples of linear light to sRGB's curve, in the same depth; alpha stays as it is."""
    return _through(samples, value_of(_levels(samples)), has_alpha)


def linear_of_srgb(samples: Samples, has_alpha: bool) -> Samples:
    """Convert samples of sRGB's curve to linear light, in the same depth; alpha stays as it is."""
    return _through(samples, light_of(_levels(samples)), has_alpha)


def _levels(samples: Samples) -> Numbers:
    """Return all values that samples of this depth can have, from 0 to 1."""
    most = np.iinfo(samples.dtype).max
    return np.arange(most + 1) / most


def _through(samples: Samples, curve: Numbers, has_alpha: bool) -> Samples:
    """Convert samples by a curve of numbers from 0 to 1, one for each of their levels."""
    levels = np.rint(curve * (len(curve) - 1)).astype(samples.dtype)
    result = in_bands(samples, samples.dtype, lambda band: levels[band])
    if has_alpha:
        result[..., -1] = samples[..., -1]
    return result
