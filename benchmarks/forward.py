"""The networks alone, on this device: what we run against eager torch in float32.

    python -m benchmarks.forward

One 512×512 input at factor 4, and the tile that the engine uses, in milliseconds (best of the runs).
"""

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.report import emit
from worker import device
from worker.compute import Compute, Pixels, TorchCompute, choose, load
from worker.registry import Model, open_folder

MODEL = Path(__file__).parent.parent / "models" / "faithful" / "1"
FACTOR = 4


def best(work: Callable[[], object], runs: int) -> float:
    """Milliseconds of the fastest run, after one that does not count."""
    work()
    times = []
    for _ in range(runs):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return min(times) * 1000


def eager(model: Model, on: torch.device, side: int) -> Callable[[], object]:
    """What everybody writes first: float32, NCHW, eager."""
    network = next(n for n in model.manifest.networks if n.factor == FACTOR)
    module = load(network, model).to(on)
    image = torch.rand(1, 3, side, side, device=on)

    def run() -> object:
        with torch.inference_mode():
            return module(image).cpu()

    return run


def run(compute: Compute, window: Pixels) -> Pixels:
    """One window, there and back."""
    return compute.start(FACTOR, [window])()


def main() -> int:
    """One JSON line per size and way."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.forward", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="runs of each, the best counts (default: 5)")
    runs: int = parser.parse_args().runs
    model, on = open_folder(MODEL), device.choose("auto").torch
    ways = {"upres": choose(model, on), "torch_bfloat16": TorchCompute(model, on, torch.bfloat16)}
    for side in (128, 512, 640):
        peer = best(eager(model, on, side), runs)
        window = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
        for name, compute in ways.items():
            milliseconds = best(partial(run, compute, window), runs)
            emit(f"forward.{side}.{name}", milliseconds, "ms", "eager float32 NCHW", peer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
