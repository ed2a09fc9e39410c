"""Golden images: a model version is served only if it enlarges them as it did when the version was made."""

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from upres.core.errors import ModelRefused
from upres.core.manifest import Golden
from upres.worker.engine.engine import Engine
from upres.worker.model import Model

Pixels = npt.NDArray[np.uint8]


def check(model: Model, engine: Engine) -> None:
    """Enlarge the golden images. Raises ModelRefused when a result differs too much, or the errors of the engine."""
    for golden in model.manifest.golden:
        found = measure_psnr(model, engine, golden)
        if not found >= golden.least_psnr_db:
            raise ModelRefused(
                f"Model {model} failed its check: its result for {golden.image.file} at factor {golden.factor} has "
                f"a PSNR of {found:.1f} dB; at least {golden.least_psnr_db:g} dB are required."
            )


def measure_psnr(model: Model, engine: Engine, golden: Golden) -> float:
    """Return the PSNR in dB between the engine's result for a golden image and the expected one; 0 if sizes differ."""
    made = engine.upscale(read_png(model.files[golden.image.file]), golden.factor)
    expected = read_png(model.files[golden.enlarged.file])
    return psnr(made, expected) if made.shape == expected.shape else 0.0


def read_png(path: Path) -> Pixels:
    """Decode a PNG file whose digest was checked: (height, width, 3), RGB."""
    with Image.open(io.BytesIO(path.read_bytes()), formats=["PNG"]) as image:
        return np.asarray(image.convert("RGB"))


def psnr(one: Pixels, other: Pixels) -> float:
    """Return the peak signal-to-noise ratio in dB over all channels, with peak 255; infinite for equal images."""
    error = np.mean((one.astype(np.float64) - other) ** 2)
    return float(10 * np.log10(255**2 / error)) if error else float("inf")
