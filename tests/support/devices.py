"""The device on which the tests of the engine and the models run networks: a CPU, or what UPRES_TEST_DEVICE names.

Modules and tests with the mark `device` use it. `make gpu` runs them with UPRES_TEST_DEVICE=cuda; all other tests, and
the parts of these that are about OpenVINO or ONNX Runtime, stay on the CPU.
"""

import os
from functools import cache
from typing import cast

import numpy as np

from upres.worker.engine import device
from upres.worker.engine.device import Device, Kind
from upres.worker.engine.torch_compute import TorchCompute
from upres.worker.model import Model

VARIABLE = "UPRES_TEST_DEVICE"
KIND = cast(Kind, os.environ.get(VARIABLE, "cpu"))
LEVELS = 0 if KIND == "cpu" else 1
"""Grey levels by which equal windows in batches of other sizes differ: a GPU may compute them in another order."""


@cache
def under_test() -> Device:
    """The device. Raises SettingsError with the reason when this machine does not have it."""
    return device.choose(KIND)


def torch_on_it(model: Model, precision: str | None = "float32") -> TorchCompute:
    """The networks of a model in torch on the device; without a precision in the one that a worker chooses."""
    return TorchCompute(model, under_test().kind, precision)


def equal(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two images have equal pixels, as far as the device computes equal ones each time."""
    level = 257 if one.dtype == np.uint16 else 1
    return one.shape == other.shape and bool((np.abs(one.astype(int) - other) <= LEVELS * level).all())
