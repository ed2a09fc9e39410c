"""The real worker with little memory on its device, or with a device that breaks down in its first job.

    python -m benchmarks.gpu.worker --device cuda --gigabytes 0.5
    python -m benchmarks.gpu.worker --device cuda --fault index|pointer

On `cpu` both are imitated: torch on the CPU raises what CUDA would raise.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu import part
from upres.worker import service
from upres.worker.__main__ import main as work
from upres.worker.engine import runtimes
from upres.worker.engine.compute import Finish, Pixels
from upres.worker.engine.torch_compute import TorchCompute
from upres.worker.model import Model

IMITATED_BYTES_PER_PIXEL = 50_000
"""What a pixel of a window takes of an imitated memory: so much that small images fill it."""
READS_BADLY = "template <typename T> T reads_badly(T x) { return x + *reinterpret_cast<const T*>(16ull); }"
"""CUDA C++ for torch's jiterator: each thread reads at an address that belongs to nobody."""


def index() -> None:
    """Read beyond the end of a tensor: a device-side assert fails."""
    numbers = torch.arange(8, device="cuda")
    numbers[numbers + 1_000_000].sum().item()


def pointer() -> None:
    """Read at a bad address: an illegal memory access. NVRTC, which compiles it, comes with torch."""
    reads_badly: Callable[[Tensor], Tensor] = torch.cuda.jiterator._create_jit_fn(READS_BADLY)
    reads_badly(torch.ones(8, device="cuda")).sum().item()


FAULTS: Mapping[str, tuple[Callable[[], None], str]] = {
    "index": (index, "CUDA error: device-side assert triggered"),
    "pointer": (pointer, "CUDA error: an illegal memory access was encountered"),
}
"""Name → what breaks the CUDA context, and what CUDA says then."""


class Breaking(TorchCompute):
    """The model on a device that breaks down in the first batch after `armed` was set."""

    armed = False

    def __init__(self, model: Model, kind: str, fault: str) -> None:
        super().__init__(model, kind)
        self._break, self._says = FAULTS[fault]
        self._imitates, self._dead = kind != "cuda", False

    def start(self, factor: int, windows: Sequence[Pixels]) -> Finish:
        """Break the device, then start the batch (see Compute)."""
        if self.armed and self._imitates:
            self._dead = True
            raise RuntimeError(f"{self._says} (imitated)")
        if self.armed:
            self._break()
        return super().start(factor, windows)

    def probe(self) -> None:
        """See Compute."""
        if self._dead:
            raise RuntimeError(f"{self._says} (imitated)")
        super().probe()


class Cramped(TorchCompute):
    """Imitates a device with so many gigabytes of memory."""

    def __init__(self, model: Model, gigabytes: float) -> None:
        super().__init__(model, "cpu", "float32")
        self._most = int(gigabytes * 1e9) // IMITATED_BYTES_PER_PIXEL

    def _start(self, factor: int, windows: Sequence[Pixels]) -> Finish:
        if sum(window.shape[0] * window.shape[1] for window in windows) > self._most:
            raise torch.OutOfMemoryError("CUDA out of memory (imitated)")
        return super()._start(factor, windows)


def break_down(kind: str, fault: str) -> None:
    """Let the worker's device break down as soon as the worker is ready: loading and golden images go well."""
    untyped_runtimes: Any = runtimes
    untyped_runtimes.choose = lambda model, *others: Breaking(model, kind, fault)
    untyped_service: Any = service
    prepare = service.prepare

    def prepare_and_arm(*arguments: Any) -> Any:
        context = prepare(*arguments)
        Breaking.armed = True
        return context

    untyped_service.prepare = prepare_and_arm


def limit_memory(kind: str, gigabytes: float) -> None:
    """Leave so much memory to torch, besides what CUDA itself takes."""
    if kind == "cuda":
        total = torch.cuda.get_device_properties().total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, gigabytes * 1e9 / total))
        return
    untyped: Any = runtimes
    untyped.choose = lambda model, *others: Cramped(model, gigabytes)


def main() -> int:
    """Change the worker and run it; returns its exit code."""
    parser = part.parser("worker", __doc__)
    parser.add_argument("--gigabytes", type=float, help="memory that it may use on its device")
    parser.add_argument("--fault", choices=sorted(FAULTS), help="how its device breaks down")
    wanted = parser.parse_args()
    if wanted.fault:
        break_down(wanted.device, wanted.fault)
    if wanted.gigabytes:
        limit_memory(wanted.device, wanted.gigabytes)
    sys.argv = ["upres.worker"]
    return work()


if __name__ == "__main__":
    sys.exit(main())
