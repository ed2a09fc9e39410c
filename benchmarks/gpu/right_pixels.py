"""Which pixels are right: those that a model makes in float32 on the same device, without a worker."""

from typing import Any

import numpy as np

from benchmarks.gpu.part import Checks
from upres.worker.engine.device_thread import DeviceThread
from upres.worker.engine.engine import Engine
from upres.worker.engine.torch_compute import TorchCompute
from upres.worker.golden import psnr
from upres.worker.imaging import images
from upres.worker.model import Model

LEAST_DB = 45.0
"""Least PSNR in dB of a result against float32, as for golden images: half precision has some 60, a wrong tile 30."""
MOST_DB = 200.0
"""What is printed for equal pixels, whose PSNR is infinite: JSON has no such number."""


class Reference:
    """The pixels that a model makes in float32 on the device, without a worker; a context manager."""

    def __init__(self, model: Model, device: str, factor: int = 4) -> None:
        self._thread, self._factor = DeviceThread(), factor
        self._engine = Engine(model.manifest, TorchCompute(model, device, "float32"), self._thread)

    def __enter__(self) -> "Reference":
        return self

    def __exit__(self, *exception: object) -> None:
        self._thread.close()

    def psnr(self, checks: Checks, name: str, given: bytes, made: bytes) -> float:
        """Return the PSNR in dB of the enlargement `made` of the image file `given`; check that it is right."""
        return psnr_of(checks, name, pixels(made), self._engine.upscale(pixels(given), self._factor))


def pixels(file: bytes) -> Any:
    """Decode an image file: (height, width, 3), RGB."""
    return images.decode(file, 10**9).pixels[..., :3]


def psnr_of(checks: Checks, name: str, made: Any, wanted: Any) -> float:
    """Return the PSNR in dB of pixels against those that are wanted; check that it is at least LEAST_DB."""
    same = made.shape == wanted.shape
    checks.expect(same, f"{name}: the result has the shape {made.shape} instead of {wanted.shape}")
    found = min(psnr(made, wanted), MOST_DB) if same else 0.0
    checks.expect(found >= LEAST_DB, f"{name}: {found:.1f} dB against the right pixels; {LEAST_DB:g} are required")
    return found


def levels(one: Any, other: Any) -> int:
    """Return the largest difference of two images in grey levels."""
    return int(np.abs(one.astype(int) - other).max())
