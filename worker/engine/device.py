"""Chooses the device that the worker runs on, and reads its name and memory."""

import logging
import os
import platform
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple

import psutil

from upres.core import cgroups, cores
from upres.core.errors import SettingsError
from upres.worker.engine import gpu
from upres.worker.engine.gpu import Gpu
from upres.worker.outage_log import OutageLog

log = logging.getLogger("upres.worker")

Kind = Literal["cuda", "mps", "cpu"]


class Device(NamedTuple):
    """A device: its kind, its product name, and its total and free memory in bytes when it was chosen."""

    kind: Kind
    name: str
    memory_total: int
    memory_free: int
    gpu: Gpu | None = None
    """What NVIDIA's driver says of it; None where there is no such driver."""

    def __str__(self) -> str:
        gib = 1 << 30
        return f"{self.name} ({self.memory_free / gib:.1f} of {self.memory_total / gib:.1f} GiB free)"


def choose(wanted: Literal["auto"] | Kind) -> Device:
    """Return the wanted device; `auto` means the fastest one.

    Raises SettingsError if this machine does not have it, or cannot use it; the error says why.
    """
    available = _available(wanted)
    kind = available[0] if wanted == "auto" else wanted
    if kind not in available:
        why = f" ({cuda_problem()})" if kind == "cuda" else ""
        raise SettingsError(f"UPRES_DEVICE: {kind} is not available here{why}; usable: auto, {', '.join(available)}")
    if kind == "cuda":
        return _cuda()
    name = f"{processor()}, {cores.count()} threads" if kind == "cpu" else f"{processor()} GPU"
    free, total = host_memory()
    return Device(kind, name, total, free)


class Memory:
    """Used and total bytes of a device's memory, by all processes, and its utilization, as of the last `refresh`.

    `utilization` is the share of the time in which the GPU computed, 0 to 1; None where no driver tells.
    Only a thread that may block calls `refresh`: the driver may not answer, and does not when the device is lost.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._outage = OutageLog("the device's report of its memory")
        self.used, self.total = device.memory_total - device.memory_free, device.memory_total
        self.utilization: float | None = None

    def refresh(self) -> None:
        """Read the values from the driver or the system. If that fails, log it and keep the old values."""
        try:
            free, self.total = _memory(self._device)
            self.utilization = self._device.gpu.utilization() if self._device.gpu else None
        except Exception as error:
            self._outage.failed(error)
        else:
            self._outage.over()
            self.used = self.total - free


def _memory(device: Device) -> tuple[int, int]:
    """Return free and total bytes of the GPU, or of the container or machine (whose memory an Apple GPU shares)."""
    if device.gpu:
        return device.gpu.memory()
    if device.kind == "cuda":
        import torch

        return torch.cuda.mem_get_info()
    return host_memory()


def host_memory() -> tuple[int, int]:
    """Return free and total bytes of the container or machine."""
    machine = psutil.virtual_memory()
    free, total = machine.available, machine.total
    for limit, used in cgroups.memory_limits():
        free, total = min(free, max(0, limit - used)), min(total, limit)
    return free, total


GPUS = tuple(map(Path, ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")))
"""Device files of the GPUs that torch can use on Linux: NVIDIA, WSL, AMD. Without any of them there is no GPU."""


def _available(wanted: str) -> list[Kind]:
    """Return the kinds of devices that the installed libraries can use, the fastest first."""
    found: list[Kind] = ["cpu"]
    if wanted == "cpu" or (wanted == "auto" and sys.platform == "linux" and not any(gpu.exists() for gpu in GPUS)):
        return found  # this saves importing torch, which takes a second
    if find_spec("torch"):
        import torch

        if torch.backends.mps.is_available():
            found.insert(0, "mps")
        if torch.cuda.is_available():
            if problem := cuda_problem():
                log.warning("the GPU is not used: %s", problem)
            else:
                found.insert(0, "cuda")
    elif find_spec("onnxruntime"):
        import onnxruntime

        if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
            found.insert(0, "cuda")
    return found


def _cuda() -> Device:
    """Describe the CUDA device. Raises SettingsError when ONNX Runtime uses it, and no driver tells its name."""
    if find_spec("torch"):
        import torch

        properties = torch.cuda.get_device_properties()
        free, total = torch.cuda.mem_get_info()
        return Device("cuda", properties.name, total, free, gpu.find(str(properties.uuid)))
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # as NVML counts
    found = gpu.find()
    if found is None:
        raise SettingsError("UPRES_DEVICE: NVIDIA's driver does not say which GPU this is: pip install nvidia-ml-py.")
    free, total = found.memory()
    return Device("cuda", found.name, total, free, found)


def cuda_problem() -> str | None:
    """Return why CUDA cannot be used here: the library, the driver, or the GPU's architecture; None when it can."""
    if not find_spec("torch"):
        return "there is no torch, and no ONNX Runtime for CUDA (onnxruntime-gpu)"
    import torch

    if not torch.version.cuda:
        return f"torch {torch.__version__} is a build without CUDA"
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
        major, minor = torch.cuda.get_device_capability()
    except Exception as error:  # torch says here what is wrong with the driver
        return str(error).splitlines()[0]
    if not supports(torch.cuda.get_arch_list(), major, minor):
        return f"torch {torch.__version__} has no code for {torch.cuda.get_device_name()} (sm_{major}{minor})"
    return None


def supports(architectures: Sequence[str], major: int, minor: int) -> bool:
    """Return whether a build for these architectures runs on a GPU of compute capability major.minor.

    Machine code (`sm_86`) runs on the same major version from its own minor on; PTX (`compute_90`) on all later ones.
    """
    for architecture in architectures:
        kind, _, digits = architecture.partition("_")
        if not digits.isdecimal():  # sm_90a is for parts of 9.0 that no kernel here needs alone
            continue
        its_major, its_minor = int(digits[:-1]), int(digits[-1])
        if its_major == major and its_minor <= minor:
            return True
        if kind == "compute" and its_major < major:
            return True
    return False


def processor() -> str:
    """Return the processor's product name. On Linux it is in /proc/cpuinfo; elsewhere `platform` knows it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
