"""A lower bound for the time of a network on a device (Williams et al. 2009, doi 10.1145/1498765.1498785).

The time of a layer is at least its floating-point operations divided by the rate of a large matrix product, and at
least its bytes divided by the rate of a large copy. Both rates are measured on the same device in the same run.
"""

from typing import NamedTuple

import torch
from torch import nn

from benchmarks.timing import best
from upres.worker.engine.networks import SuperResolutionNetwork


class Ceilings(NamedTuple):
    """Measured rates: FLOP per second and bytes per second."""

    flops: float
    bandwidth: float


class Layers(NamedTuple):
    """For each convolution: FLOP, and bytes to read its input and write its output once."""

    flops: list[int]
    bytes: list[int]

    def seconds(self, ceilings: Ceilings) -> float:
        """The roofline in seconds: the sum over layers of the larger of both bounds."""
        pairs = zip(self.flops, self.bytes, strict=True)
        return sum(max(flops / ceilings.flops, moved / ceilings.bandwidth) for flops, moved in pairs)


def measure(on: torch.device, dtype: torch.dtype, runs: int) -> Ceilings:
    """Measure the rates of a product of large matrices, and of a copy of 256 MiB."""
    side = 8192 if on.type == "cuda" else 2048
    left, right = (torch.rand(side, side, device=on, dtype=dtype) for _ in range(2))
    source, target = (torch.empty(1 << 28, dtype=torch.uint8, device=on) for _ in range(2))
    product = best(lambda: torch.mm(left, right), runs, on)
    copy = best(lambda: target.copy_(source), runs, on)
    return Ceilings(2 * side**3 / product, 2 * (1 << 28) / copy)


def layers(network: SuperResolutionNetwork, height: int, width: int, bytes_per_value: int) -> Layers:
    """The 3×3 convolutions of a network for one image; all must work at the resolution of the input."""
    flops, moved = [], []
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            inputs, outputs = module.in_channels, module.out_channels
            flops.append(2 * 9 * inputs * outputs * height * width)
            moved.append((inputs + outputs) * height * width * bytes_per_value)
    return Layers(flops, moved)
