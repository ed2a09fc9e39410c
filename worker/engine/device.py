"""Chooses the device that the worker runs on, and reads its name and memory."""

import platform
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple

import psutil

from upres.core.errors import SettingsError
from upres.worker.engine import cgroups
from upres.worker.outage_log import OutageLog

Kind = Literal["cuda", "mps", "cpu"]
DRIVER_SECONDS = 10
"""Timeout of nvidia-smi in seconds."""


class Device(NamedTuple):
    """A device: its kind, its product name, and its total and free memory in bytes when it was chosen."""

    kind: Kind
    name: str
    memory_total: int
    memory_free: int

    def __str__(self) -> str:
        gib = 1 << 30
        return f"{self.name} ({self.memory_free / gib:.1f} of {self.memory_total / gib:.1f} GiB free)"


def choose(wanted: Literal["auto"] | Kind) -> Device:
    """Return the wanted device; `auto` means the fastest one. Raises SettingsError if this machine does not have it."""
    available = _available(wanted)
    kind = available[0] if wanted == "auto" else wanted
    if kind not in available:
        raise SettingsError(f"UPRES_DEVICE: {kind} is not available here; usable: auto, {', '.join(available)}")
    if kind == "cuda":
        return _cuda()
    name = f"{processor()}, {psutil.cpu_count()} threads" if kind == "cpu" else f"{processor()} GPU"
    free, total = _memory(kind)
    return Device(kind, name, total, free)


class Memory:
    """Used and total bytes of a device's memory, by all processes, as of the last `refresh`.

    Only a thread that may block calls `refresh`: the driver may not answer, and does not when the device is lost.
    """

    def __init__(self, device: Device) -> None:
        self._kind = device.kind
        self._outage = OutageLog("the device's report of its memory")
        self.used, self.total = device.memory_total - device.memory_free, device.memory_total

    def refresh(self) -> None:
        """Read the values from the driver or the system. If that fails, log it and keep the old values."""
        try:
            free, self.total = _memory(self._kind)
        except Exception as error:
            self._outage.failed(error)
        else:
            self._outage.over()
            self.used = self.total - free


def _memory(kind: Kind) -> tuple[int, int]:
    """Return free and total bytes of the GPU, or of the container or machine (whose memory an Apple GPU shares)."""
    if kind == "cuda":
        device = _cuda()
        return device.memory_free, device.memory_total
    return host_memory()


def host_memory() -> tuple[int, int]:
    """Return free and total bytes of the container or machine."""
    machine = psutil.virtual_memory()
    free, total = machine.available, machine.total
    for limit, used in cgroups.limits():
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
            found.insert(0, "cuda")
    elif find_spec("onnxruntime"):
        import onnxruntime

        if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
            found.insert(0, "cuda")
    return found


def _cuda() -> Device:
    """Describe the CUDA device, through torch or nvidia-smi."""
    if find_spec("torch"):
        import torch

        free, total = torch.cuda.mem_get_info()
        return Device("cuda", torch.cuda.get_device_name(), total, free)
    query = ["nvidia-smi", "--query-gpu=name,memory.total,memory.free", "--format=csv,noheader,nounits"]
    output = subprocess.run(query, capture_output=True, text=True, check=True, timeout=DRIVER_SECONDS).stdout
    name, *mebibytes = output.splitlines()[0].split(", ")
    return Device("cuda", name, *(int(one) << 20 for one in mebibytes))


def processor() -> str:
    """Return the processor's product name. On Linux it is in /proc/cpuinfo; elsewhere `platform` knows it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
