"""What the parts of `make gpu` share: their arguments, what they print, and which pixels are right."""

import argparse
import json
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

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


def parser(module: str, about: str | None) -> argparse.ArgumentParser:
    """Return the parser of a part's arguments. SIGTERM, when its time has run out, ends the part in order."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    made = argparse.ArgumentParser(prog=f"python -m benchmarks.gpu.{module}", description=about)
    made.add_argument("--device", choices=["cuda", "cpu"], required=True, help="cpu: an imitation, without a GPU")
    return made


def size(text: str) -> tuple[int, int]:
    """Read WIDTHxHEIGHT. Raises ValueError."""
    width, height = map(int, text.split("x"))
    return width, height


def fact(name: str, value: object) -> None:
    """Print something that is no figure, such as a version."""
    print(json.dumps({"fact": name, "value": str(value)}), flush=True)


def missing(what: str, why: object) -> None:
    """Print what could not be measured here, which is no fault of upres."""
    print(json.dumps({"missing": f"{what}: {why}"}), flush=True)


class Checks:
    """Collects what is wrong, so that one fault does not hide the next one. `code` is the exit code."""

    def __init__(self) -> None:
        self.code = 0

    def expect(self, true: bool, otherwise: str) -> None:
        """Print `otherwise` as wrong if the condition is false."""
        if not true:
            print(json.dumps({"wrong": otherwise}), flush=True)
            self.code = 1

    @contextmanager
    def of(self, what: str) -> Iterator[None]:
        """Turn an error within the block into something that is wrong, so that the next check can follow."""
        try:
            yield
        except Exception as error:
            traceback.print_exc()
            text = str(error).splitlines() or [""]
            self.expect(False, f"{what}: {type(error).__name__}: {text[0]}")


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
