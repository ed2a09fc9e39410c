"""What this machine is: driver, CUDA, torch, GPU; and whether upres can use the GPU.

    python -m benchmarks.gpu.versions --device cuda

Exit code 69 when it cannot; then it says why, and what to do.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import psutil
import torch

import upres
from benchmarks.gpu import part
from benchmarks.gpu.part import Checks, fact, missing
from benchmarks.gpu.runner import UNUSABLE
from upres.core import cores
from upres.worker.engine import device
from upres.worker.engine.device import Device, processor

GIB = 1 << 30
PINNED_BYTES = 64 << 20
"""What one batch of the largest windows needs, with its results."""
USES_IT = "import torch; assert float(torch.ones(8, device='cuda').sum()) == 8"


def of_the_host() -> Iterator[tuple[str, object]]:
    """Yield what does not depend on a GPU."""
    yield "upres", upres.__version__
    yield "OS", platform.platform()
    yield "Python", platform.python_version()
    yield "processor", f"{processor()}, {cores.count()} threads"
    yield "memory of the host", f"{psutil.virtual_memory().total / GIB:.0f} GiB"
    shared = Path("/dev/shm")
    yield "/dev/shm", f"{shutil.disk_usage(shared).total / GIB:.2f} GiB" if shared.exists() else "none"
    yield "torch", torch.__version__
    yield "C compiler, for torch.compile", shutil.which("cc") or shutil.which("gcc") or "none"


def of_the_gpu(chosen: Device) -> Iterator[tuple[str, object]]:
    """Yield what NVIDIA's driver and torch say of the GPU."""
    properties = torch.cuda.get_device_properties()
    yield "GPU", chosen.name
    yield "memory of the GPU", f"{chosen.memory_free / GIB:.1f} of {chosen.memory_total / GIB:.1f} GiB free"
    yield "compute capability", f"{properties.major}.{properties.minor}"
    yield "multiprocessors", properties.multi_processor_count
    yield "driver", driver()
    yield "CUDA of torch", torch.version.cuda
    yield "cuDNN", torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    yield "architectures of torch", ", ".join(torch.cuda.get_arch_list())
    yield "part of a GPU (MIG)", "yes" if "MIG" in chosen.name else "no"
    yield "GPUs that torch sees", torch.cuda.device_count()
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_LAUNCH_BLOCKING", "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):
        if name in os.environ:
            yield name, os.environ[name]


def driver() -> str:
    """Return the version of NVIDIA's driver: NVML's answer, else the kernel module's."""
    try:
        import pynvml  # type: ignore[import-untyped]

        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())
    except Exception as error:  # without the package, or with another driver than its library's
        module = Path("/proc/driver/nvidia/version")
        return module.read_text().splitlines()[0] if module.exists() else f"unknown: {error}"


def advice(problem: str) -> str:
    """Return what to do when CUDA cannot be used for a reason that torch, or upres, gives."""
    if not torch.version.cuda:
        plain = torch.__version__.partition("+")[0]
        return (
            f"Install torch with CUDA, which is pip's default on Linux: {sys.executable} -m pip install "
            f"--force-reinstall torch=={plain}"
        )
    if "driver" in problem or "found no NVIDIA" in problem:
        return (
            f"Install NVIDIA's driver, or a newer one, for CUDA {torch.version.cuda}; in a container, give it the GPU."
        )
    return (
        "Look whether `nvidia-smi` shows the GPU, and whether CUDA_VISIBLE_DEVICES leaves it; "
        f"torch has code for {', '.join(torch.cuda.get_arch_list())}."
    )


def check_surroundings(checks: Checks, chosen: Device) -> None:
    """Check what a container or a machine may lack: pinned memory, room for a second process, NVML."""
    try:
        torch.empty(PINNED_BYTES, dtype=torch.uint8, pin_memory=True)
    except RuntimeError as error:
        checks.expect(False, f"no pinned memory of {PINNED_BYTES >> 20} MiB: {error}")
    second = subprocess.run([sys.executable, "-c", USES_IT], capture_output=True, text=True)
    why = (second.stderr.strip().splitlines() or [""])[-1]
    # Workers and these checks share the GPU; in the compute mode «exclusive process» they cannot.
    checks.expect(second.returncode == 0, f"two processes cannot use the GPU at once: {why}; see `nvidia-smi -q`")
    if chosen.gpu is None:
        why = "nvidia-ml-py is not installed" if not find_spec("pynvml") else "NVML does not know this GPU"
        missing("utilization and memory in /metrics", why)
    elif chosen.gpu.utilization() is None:
        missing("utilization in /metrics", "the driver does not tell it for a part of a GPU (MIG)")


def main() -> int:
    """Print one JSON line per fact."""
    wanted = part.parser("versions", __doc__).parse_args()
    for name, value in of_the_host():
        fact(name, value)
    if wanted.device == "cpu":
        return 0
    if problem := device.cuda_problem():
        print(json.dumps({"wrong": problem, "advice": advice(problem)}))
        return UNUSABLE
    chosen, checks = device.choose("cuda"), Checks()
    for name, value in of_the_gpu(chosen):
        fact(name, value)
    check_surroundings(checks, chosen)
    return checks.code


if __name__ == "__main__":
    sys.exit(main())
