"""Golden images: a model version is served only if it enlarges them as it did when the version was made."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from upres.core.errors import ImageError, ModelRefused
from upres.core.manifest import File, Golden
from upres.worker.engine.engine import Engine
from upres.worker.imaging.picture import Picture
from upres.worker.model import Model
from upres.worker.samples import eight_bits

Pixels = npt.NDArray[np.uint8]
OTHER_STRENGTH_DB = 20
"""Minimum PSNR in dB for other strengths than the one that golden images are made with: the look differs, and a network
that was mixed wrongly makes noise."""
Decode = Callable[[bytes, int], Picture]
"""Decodes an image file of at most so many pixels: Decoders.decode, because the author of a model made the file."""
MAX_PIXELS = 4_000_000
"""Largest golden image in pixels, also of the enlarged ones."""


def check(model: Model, engine: Engine, decode: Decode) -> None:
    """Enlarge the golden images.

    Raises ModelRefused when one cannot be decoded or a result differs too much, or the errors of the engine.
    """
    for golden in model.manifest.golden:
        found = measure_psnr(model, engine, golden, decode)
        least = golden.least_psnr_db if model.is_default else OTHER_STRENGTH_DB
        if not found >= least:
            raise ModelRefused(
                f"Model {model} failed its check: its result for {golden.image.file} at factor {golden.factor} has "
                f"a PSNR of {found:.1f} dB; at least {least:g} dB are required."
            )


def measure_psnr(model: Model, engine: Engine, golden: Golden, decode: Decode) -> float:
    """Return the PSNR in dB between the engine's result for a golden image and the expected one; 0 if sizes differ.

    Raises ModelRefused when one of them cannot be decoded.
    """
    image, expected = (_pixels(model, file, decode) for file in (golden.image, golden.enlarged))
    if image.shape[0] * image.shape[1] * golden.factor**2 > MAX_PIXELS:
        return 0.0
    made = engine.upscale(image, golden.factor)
    return psnr(made, expected) if made.shape == expected.shape else 0.0


def _pixels(model: Model, file: File, decode: Decode) -> Pixels:
    """Decode a golden image: (height, width, 3), RGB. Raises ModelRefused."""
    try:
        return eight_bits(decode(model.files[file.file].read_bytes(), MAX_PIXELS).pixels[..., :3])
    except ImageError as error:
        raise ModelRefused(f"Model {model} failed its check: {file.file} cannot be decoded ({error})") from error


def psnr(one: Pixels, other: Pixels) -> float:
    """Return the peak signal-to-noise ratio in dB over all channels, with peak 255; infinite for equal images."""
    error = np.mean((one.astype(np.float64) - other) ** 2)
    return float(10 * np.log10(255**2 / error)) if error else float("inf")
