"""Which processor the worker runs on, and what it is."""

import platform
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple

import psutil

from core.errors import SettingsError

Kind = Literal["cuda", "mps", "cpu"]


class Device(NamedTuple):
    """A kind of processor, its maker's name for it, and its memory in bytes."""

    kind: Kind
    name: str
    memory_total: int
    memory_free: int

    def __str__(self) -> str:
        gib = 1 << 30
        return f"{self.name} ({self.memory_free / gib:.1f} of {self.memory_total / gib:.1f} GiB free)"


def choose(wanted: Literal["auto"] | Kind) -> Device:
    """The wanted device, described; SettingsError when this machine does not have it."""
    available = _available(wanted)
    kind = available[0] if wanted == "auto" else wanted
    if kind not in available:
        raise SettingsError(f"UPRES_DEVICE: {kind} is not available here; usable: auto, {', '.join(available)}")
    if kind == "cuda":
        return _cuda()
    name = f"{_processor()}, {psutil.cpu_count()} threads" if kind == "cpu" else f"{_processor()} GPU"
    free, total = memory(kind)
    return Device(kind, name, total, free)


def memory(kind: Kind) -> tuple[int, int]:
    """Free and total bytes of the device's memory now."""
    if kind == "cuda":
        device = _cuda()
        return device.memory_free, device.memory_total
    machine = psutil.virtual_memory()  # Apple's GPU shares it
    return machine.available, machine.total


GPUS = tuple(map(Path, ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")))
"""Without any of these Linux has no GPU that torch could use: NVIDIA's, WSL's, AMD's."""


def _available(wanted: str) -> list[Kind]:
    """What the libraries here can use, the fastest first."""
    found: list[Kind] = ["cpu"]
    if wanted == "cpu" or (wanted == "auto" and sys.platform == "linux" and not any(gpu.exists() for gpu in GPUS)):
        return found  # torch, which takes a second to load, would say the same
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
    if find_spec("torch"):
        import torch

        free, total = torch.cuda.mem_get_info()
        return Device("cuda", torch.cuda.get_device_name(), total, free)
    query = ["nvidia-smi", "--query-gpu=name,memory.total,memory.free", "--format=csv,noheader,nounits"]
    line = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()[0]
    name, *mebibytes = line.split(", ")
    return Device("cuda", name, *(int(one) << 20 for one in mebibytes))


def _processor() -> str:
    """The processor's name; Linux alone does not tell it through `platform`."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
