"""The networks alone on this device: upres's runtime against other runtimes, and against the roofline.

    python -m benchmarks.forward [--device cuda] [--precisions float16 float32]

At factor 4, in milliseconds, best of the runs. First from host to host, against eager torch in float32; then 1080p and
a thumbnail against the roofline, also with torch.compile and CUDA graphs. Without --precisions upres uses the runtime
that a worker chooses, and the others bfloat16.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import roofline
from benchmarks.report import emit
from benchmarks.roofline import Ceilings
from benchmarks.timing import best
from upres.worker.engine.compute import Compute
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
WAYS = ("upres", "eager", "graph", "compiled")


def network(model: Model) -> SuperResolutionNetwork:
    """The network for FACTOR, in float32 on the host."""
    return load(next(n for n in model.manifest.networks if n.factor == FACTOR), model)


def there_and_back(model: Model, device: Device, runs: int, sides: Sequence[int], precisions: Sequence[str]) -> None:
    """Time of pixels on the host to pixels on the host; the peer is eager torch in float32."""
    on = torch.device(device.kind)
    ways = {"upres": choose(model, device)}
    for precision in precisions:
        ways[f"torch_{precision}"] = TorchCompute(model, device.kind, precision)
    eager = network(model).to(on)
    for side in sides:
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


class Roofline(NamedTuple):
    """One size of input in one precision: the ways to compute it, each prepared when it is called; least seconds."""

    name: str
    windows: Tensor
    ways: dict[str, Callable[[], Callable[[Tensor], object]]]
    least: float

    @torch.inference_mode()
    def measure(self, way: str, runs: int) -> None:
        """Print the time of one way, and that of its preparation; or why it does not run here, such as no compiler."""
        try:
            begin = time.perf_counter()
            run = self.ways[way]()
            prepared = time.perf_counter() - begin
            seconds = best(partial(run, self.windows), runs, self.windows.device)
        except Exception as error:
            if way == "upres":
                raise
            print(json.dumps({"missing": f"{self.name}.{way}: {str(error).splitlines()[:1]}"}), flush=True)
            return
        emit(f"{self.name}.{way}", seconds * 1000, "ms", "roofline", self.least * 1000)
        emit(f"{self.name}.{way}.prepare", prepared, "s", "one run", seconds)


@torch.inference_mode()
def roofline_of(
    model: Model, compute: Compute, on: torch.device, size: tuple[int, int], dtype: torch.dtype, ceilings: Ceilings
) -> Roofline:
    """Return the ways for pixels that are already on the device, except for upres, whose input is on the host."""
    module, (width, height) = place(network(model), on, dtype), size

    def upres(windows: Tensor) -> object:
        return compute.start(FACTOR, list(windows.cpu().numpy()))()

    windows = torch.randint(0, 256, (1, height, width, 3), dtype=torch.uint8, device=on)
    least = roofline.layers(module.network, height, width, dtype.itemsize).seconds(ceilings)
    ways: dict[str, Callable[[], Callable[[Tensor], object]]] = {"upres": lambda: upres, "eager": lambda: module}
    if on.type == "cuda":
        ways["graph"] = partial(graph, module, windows)
    ways["compiled"] = partial(compiled, module, windows)
    return Roofline(f"roofline.{width}x{height}.{str(dtype).removeprefix('torch.')}", windows, ways, least)


def against_the_roofline(model: Model, device: Device, wanted: argparse.Namespace) -> None:
    """Measure each way for all sizes and precisions; torch.compile, which takes longest to prepare, comes last."""
    on, found = torch.device(device.kind), list[Roofline]()
    for precision in wanted.precisions or ["bfloat16"]:
        dtype: torch.dtype = getattr(torch, precision)
        compute = TorchCompute(model, device.kind, precision) if wanted.precisions else choose(model, device)
        ceilings = roofline.measure(on, dtype, wanted.runs)
        found += [roofline_of(model, compute, on, size, dtype, ceilings) for size in wanted.sizes]
    for way in wanted.ways:
        for one in found:
            if way in one.ways:
                one.measure(way, wanted.runs)


def _size(text: str) -> tuple[int, int]:
    width, height = map(int, text.split("x"))
    return width, height


def main() -> int:
    """Print one JSON line per size and runtime."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.forward", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="runs of each; the fastest counts (default: 5)")
    parser.add_argument("--device", choices=["auto", "cuda", "cpu"], default="auto")
    parser.add_argument("--precisions", nargs="+", default=[], help="number formats, such as float16 float32")
    parser.add_argument("--sides", type=int, nargs="+", default=[128, 512, 640], help="sides from host to host")
    sizes = [(1920, 1080), (192, 192)]
    parser.add_argument("--sizes", type=_size, nargs="+", default=sizes, metavar="WxH", help="against the roofline")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS, help="against the roofline")
    wanted = parser.parse_args()
    model, on = open_folder(MODEL), choose_device(wanted.device)
    there_and_back(model, on, wanted.runs, wanted.sides, wanted.precisions or ["bfloat16"])
    against_the_roofline(model, on, wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
