"""The networks alone on this device: upres's runtime against other runtimes, and against the roofline.

    python -m benchmarks.forward

At factor 4, in milliseconds, best of the runs. First from host to host, against eager torch in float32; then 1080p and
a thumbnail against the roofline, also with torch.compile and CUDA graphs.
"""

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import roofline
from benchmarks.report import emit
from benchmarks.timing import best
from upres.worker.engine.device import Device
from upres.worker.engine.device import choose as choose_device
from upres.worker.engine.loading import load
from upres.worker.engine.networks import SuperResolutionNetwork
from upres.worker.engine.runtimes import choose
from upres.worker.engine.torch_compute import TorchCompute, place
from upres.worker.model import Model, open_folder

MODEL = Path(__file__).parent.parent / "models" / "faithful" / "1"
FACTOR = 4
Way = Callable[[Tensor], Tensor]


def network(model: Model) -> SuperResolutionNetwork:
    """The network for FACTOR, in float32 on the host."""
    return load(next(n for n in model.manifest.networks if n.factor == FACTOR), model)


def there_and_back(model: Model, device: Device, runs: int) -> None:
    """Time of pixels on the host to pixels on the host; the peer is eager torch in float32."""
    on = torch.device(device.kind)
    ways = {"upres": choose(model, device), "torch_bfloat16": TorchCompute(model, device.kind, "bfloat16")}
    eager = network(model).to(on)
    for side in (128, 512, 640):
        image = torch.rand(1, 3, side, side, device=on)
        with torch.inference_mode():
            peer = best(partial(_to_host, eager, image), runs, on)
        window = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
        for name, compute in ways.items():
            seconds = best(partial(lambda c, w: c.start(FACTOR, [w])(), compute, window), runs, on)
            emit(f"forward.{side}.{name}", seconds * 1000, "ms", "eager float32 NCHW", peer * 1000)


def _to_host(module: nn.Module, image: Tensor) -> Tensor:
    result: Tensor = module(image)
    return result.cpu()


def graph(module: nn.Module, example: Tensor) -> Way:
    """The module as a CUDA graph, for inputs of the shape of `example`."""
    held, captured = example.clone(), torch.cuda.CUDAGraph()
    module(held)
    with torch.cuda.graph(captured):
        result: Tensor = module(held)

    def replay(windows: Tensor) -> Tensor:
        held.copy_(windows)
        captured.replay()
        return result

    return replay


def compiled(module: nn.Module, example: Tensor) -> Way:
    """The module through torch.compile, for inputs of the shape of `example`."""
    way: Way = torch.compile(module, dynamic=False)
    way(example)
    return way


@torch.inference_mode()
def against_the_roofline(model: Model, device: Device, runs: int) -> None:
    """Time for pixels that are already on the device, except for upres, whose input is on the host; and setup times."""
    on, compute = torch.device(device.kind), choose(model, device)
    module = place(network(model), on, torch.bfloat16)

    def upres(windows: Tensor) -> object:
        return compute.start(FACTOR, list(windows.cpu().numpy()))()

    for side, (height, width) in {"1080p": (1080, 1920), "thumbnail": (192, 192)}.items():
        windows = torch.randint(0, 256, (1, height, width, 3), dtype=torch.uint8, device=on)
        least = roofline.layers(module.network, height, width, 2).seconds(roofline.measure(on, torch.bfloat16, runs))
        ways: dict[str, Callable[[], Callable[[Tensor], object]]] = {
            "upres": lambda: upres,
            "eager": lambda: module,
            "compiled": partial(compiled, module, windows),
        }
        if on.type == "cuda":
            ways["graph"] = partial(graph, module, windows)
        for name, prepare in ways.items():
            begin = time.perf_counter()
            way = prepare()
            prepared = time.perf_counter() - begin
            seconds = best(partial(way, windows), runs, on)
            emit(f"roofline.{side}.{name}", seconds * 1000, "ms", "roofline", least * 1000)
            emit(f"roofline.{side}.{name}.prepare", prepared, "s", "one run", seconds)


def main() -> int:
    """Print one JSON line per size and runtime."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.forward", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="runs of each; the fastest counts (default: 5)")
    runs: int = parser.parse_args().runs
    model, on = open_folder(MODEL), choose_device("auto")
    there_and_back(model, on, runs)
    against_the_roofline(model, on, runs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
