"""`python -m tests.support.faulty_worker FLAGS`: the real worker with changed limits, or with a device that fails.

Each flag changes a constant of a module or replaces a part of the worker before the worker starts.
"""

import argparse
import importlib
import sys
import threading
import time
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from upres.core import keys, script
from upres.worker import heartbeat, inputs, memory_budget, model_cache, probes, resuming, service
from upres.worker.__main__ import main
from upres.worker.engine import device, runtimes
from upres.worker.engine.compute import Compute, Finish, OutOfMemory, Pixels
from upres.worker.engine.torch_compute import TorchCompute
from upres.worker.model import Model

SOUND_CALLS = 4
"""The device calls of the warm-up and the golden images: these calls succeed."""
TIGHT_PIXELS = 150 * 150
HANGING_ROWS = 170
LOST = "CUDA error: an illegal memory access was encountered"

CONSTANTS: dict[str, tuple[ModuleType, str]] = {
    "lease_seconds": (keys, "LEASE_SECONDS"),
    "beat_seconds": (keys, "HEARTBEAT_SECONDS"),
    "tile": (model_cache, "TILE"),
    "long_seconds": (resuming, "LONG_SECONDS"),
    "fetch_seconds": (inputs, "TOTAL_SECONDS"),
    "loading_seconds": (probes, "LOADING_SECONDS"),
}
"""Flag → the module and the constant that it changes."""
Fault = Callable[[Sequence[Pixels]], None]


def parse() -> argparse.Namespace:
    """Parse the flags of the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.faulty_worker", description=__doc__)
    parser.add_argument("--lease-seconds", type=float, help="a killed worker's jobs are free after so long")
    parser.add_argument("--beat-seconds", type=float, help="how often it renews its leases")
    parser.add_argument("--tile", type=int, help="side of the tiles, in pixels")
    parser.add_argument("--long-seconds", type=float, help="jobs that take longer leave checkpoints")
    parser.add_argument("--fetch-seconds", type=float, help="an image may take so long to come")
    parser.add_argument("--memory", type=int, help="bytes of memory that jobs may use together")
    parser.add_argument("--loads-for-ever", action="store_true", help="it never becomes ready")
    parser.add_argument("--loading-seconds", type=float, help="loading longer than this counts as stuck")
    parser.add_argument("--without", metavar="MODULE", help="as if this module were not installed")
    parser.add_argument("--pause-seconds", type=float, help="pause before each tile")
    parser.add_argument("--device", choices=sorted(FAULTS), help="how the device fails")
    return parser.parse_args()


def prepare(flags: argparse.Namespace) -> None:
    """Apply the flags."""
    for flag, (module, constant) in CONSTANTS.items():
        if (value := getattr(flags, flag)) is not None:
            setattr(module, constant, value)
    importlib.reload(script)  # the Lua source contains the constants of keys.py as they were at the first import
    if flags.loads_for_ever:
        setattr(service, "prepare", lambda settings: time.sleep(600))
    if flags.memory:
        setattr(service, "MemoryBudget", lambda total: memory_budget.MemoryBudget(flags.memory))
    if flags.without:
        modules: dict[str, Any] = sys.modules
        modules[flags.without] = None  # an import of this module now fails
    if flags.pause_seconds:
        setattr(runtimes, "choose", pausing(runtimes.choose, flags.pause_seconds))
    if flags.device:
        heartbeat.DEVICE_SECONDS = 3 if flags.device == "hangs" else heartbeat.DEVICE_SECONDS
        setattr(runtimes, "choose", lambda model, *others: FaultyCompute(model, FAULTS[flags.device]))


def pausing(choose: Callable[..., Compute], seconds: float) -> Callable[..., Compute]:
    """Return a function like runtimes.choose whose devices pause before each tile."""

    def choose_pausing(*arguments: Any) -> Compute:
        compute = choose(*arguments)
        start = compute.start

        def start_later(factor: int, windows: Sequence[Pixels]) -> Finish:
            time.sleep(seconds * len(windows))
            return start(factor, windows)

        setattr(compute, "start", start_later)
        return compute

    return choose_pausing


def lose(windows: Sequence[Pixels]) -> None:
    """Fail as if the CUDA context were lost."""
    raise RuntimeError(LOST)


def fall_silent(windows: Sequence[Pixels]) -> None:
    """Fail as `lose` does, after the driver has stopped reporting its memory and the worker has noticed this."""
    setattr(device, "_memory", None)
    time.sleep(3)
    lose(windows)


def run_short(windows: Sequence[Pixels]) -> None:
    """Fail with OutOfMemory for large batches."""
    if sum(window.shape[0] * window.shape[1] for window in windows) > TIGHT_PIXELS:
        raise OutOfMemory("pretended")


def hang(windows: Sequence[Pixels]) -> None:
    """Never return from a call with windows of a certain height."""
    if windows[0].shape[0] == HANGING_ROWS:
        threading.Event().wait()


FAULTS: dict[str, Fault] = {"hangs": hang, "lost": lose, "silent": fall_silent, "tight": run_short}


class FaultyCompute(TorchCompute):
    """torch on the CPU; the fault applies after the first calls."""

    def __init__(self, model: Model, fault: Fault) -> None:
        super().__init__(model, "cpu", "float32")
        self._fault, self._calls, self._dead = fault, 0, False

    def start(self, factor: int, windows: Sequence[Pixels]) -> Finish:
        """Start a batch; see Compute.start."""
        self._calls += 1
        if self._calls > SOUND_CALLS:
            try:
                self._fault(windows)
            except RuntimeError:
                self._dead = True
                raise
        return super().start(factor, windows)

    def probe(self) -> None:
        """A lost device does not answer."""
        if self._dead:
            raise RuntimeError(LOST)


if __name__ == "__main__":
    prepare(parse())
    sys.argv = ["upres.worker"]
    sys.exit(main())
