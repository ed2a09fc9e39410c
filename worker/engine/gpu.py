"""What NVIDIA's driver says of the GPU, or of the part of one (MIG), that CUDA uses here: NVML, by the device's UUID.

NVML numbers all GPUs of the machine. CUDA numbers those that CUDA_VISIBLE_DEVICES leaves, in another order; so its
device 0 may be any of them, and only the UUID says which.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from typing import Any

PREFIXES = ("GPU-", "MIG-")


class Gpu:
    """One GPU in NVML, without a CUDA context. `find` makes it. Methods raise NVML's errors, such as a lost GPU's."""

    def __init__(self, nvml: Any, handle: Any) -> None:
        self._nvml, self._handle = nvml, handle

    @property
    def name(self) -> str:
        """The product name."""
        return str(self._nvml.nvmlDeviceGetName(self._handle))

    def memory(self) -> tuple[int, int]:
        """Return free and total bytes."""
        found = self._nvml.nvmlDeviceGetMemoryInfo(self._handle)
        return int(found.free), int(found.total)

    def utilization(self) -> float | None:
        """Return the share of the last moments in which any process computed on it, 0 to 1; None on a MIG device."""
        with suppress(self._nvml.NVMLError_NotSupported, self._nvml.NVMLError_InvalidArgument):
            return float(self._nvml.nvmlDeviceGetUtilizationRates(self._handle).gpu) / 100
        return None


def find(uuid: str | None = None, environment: Mapping[str, str] = os.environ) -> Gpu | None:
    """Return the GPU with a UUID as torch gives it; without one the first that CUDA_VISIBLE_DEVICES names.

    Numbers there count in the order of the bus, as CUDA does with CUDA_DEVICE_ORDER=PCI_BUS_ID. Returns None without
    NVML, or when it does not know the GPU.
    """
    first = environment.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    if not (first and find_spec("pynvml")):
        return None
    import pynvml  # type: ignore[import-untyped]

    with suppress(pynvml.NVMLError):
        pynvml.nvmlInit()
        if uuid is None and first.isdecimal():
            return Gpu(pynvml, pynvml.nvmlDeviceGetHandleByIndex(int(first)))
        handle = _by_uuid(pynvml, uuid or first)
        return Gpu(pynvml, handle) if handle else None
    return None


def _by_uuid(nvml: Any, uuid: str) -> Any:
    """Return the handle of a GPU by its UUID, with or without its prefix; CUDA_VISIBLE_DEVICES may shorten it."""
    for prefix in PREFIXES if not uuid.startswith(PREFIXES) else ("",):
        with suppress(nvml.NVMLError):
            return nvml.nvmlDeviceGetHandleByUUID(prefix + uuid)
    for index in range(nvml.nvmlDeviceGetCount()):
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        if str(nvml.nvmlDeviceGetUUID(handle)).startswith(uuid):
            return handle
    return None
