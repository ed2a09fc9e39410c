"""Which processor the worker runs on, and what it is."""

import platform
from pathlib import Path
from typing import Literal, NamedTuple

import psutil
import torch

from core.errors import SettingsError


class Device(NamedTuple):
    """A torch device, its maker's name for it, and its memory in bytes."""

    torch: torch.device
    name: str
    memory_total: int
    memory_free: int

    def __str__(self) -> str:
        gib = 1 << 30
        return f"{self.name} ({self.memory_free / gib:.1f} of {self.memory_total / gib:.1f} GiB free)"


def choose(wanted: Literal["auto", "cuda", "mps", "cpu"]) -> Device:
    """The wanted device, described; SettingsError when this machine does not have it."""
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    kind = next(name for name in available if available[name]) if wanted == "auto" else wanted
    if not available[kind]:
        usable = ", ".join(name for name in available if available[name])
        raise SettingsError(f"UPRES_DEVICE: {kind} is not available here; usable: auto, {usable}")
    if kind == "cuda":
        free, total = torch.cuda.mem_get_info()
        return Device(torch.device("cuda"), torch.cuda.get_device_name(), total, free)
    # Apple's GPU shares the machine's memory.
    memory = psutil.virtual_memory()
    name = f"{_processor()}, {torch.get_num_threads()} threads" if kind == "cpu" else f"{_processor()} GPU"
    return Device(torch.device(kind), name, memory.total, memory.available)


def _processor() -> str:
    """The processor's name; Linux alone does not tell it through `platform`."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
